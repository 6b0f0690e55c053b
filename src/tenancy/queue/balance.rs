//! How many jobs a worker runs at once: Horizon's `balance: auto`, with its names and its defaults.

use std::time::Duration;

/// Between how many, and how fast that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Fewest at once.
    pub min_processes: usize,
    /// Most at once.
    pub max_processes: usize,
    /// How many more or fewer at each change.
    pub max_shift: usize,
    /// Between two changes.
    pub cooldown: Duration,
}

impl Default for Balance {
    fn default() -> Self {
        Self { min_processes: 1, max_processes: 10, max_shift: 1, cooldown: Duration::from_secs(3) }
    }
}

impl Balance {
    /// How many after a change, where `busy` of `now` are at work and tenants wait or do not.
    pub fn next(&self, now: usize, busy: usize, waiting: bool) -> usize {
        let wanted = if waiting && busy >= now {
            now.saturating_add(self.max_shift)
        } else if !waiting && busy < now {
            now.saturating_sub(self.max_shift).max(busy)
        } else {
            now
        };
        wanted.clamp(self.min_processes, self.max_processes.max(self.min_processes))
    }
}

/// Divides `free` places among tenants with these start tags and weights: each place goes to the one whose tag is lowest,
/// which then rises by what a job costs.
pub(super) fn share(free: usize, tenants: &[(f64, f64)]) -> Vec<usize> {
    let mut shares = vec![0; tenants.len()];
    let mut tags: Vec<f64> = tenants.iter().map(|(tag, _)| *tag).collect();
    for _ in 0..free {
        let Some(next) = (0..tags.len()).min_by(|&one, &two| tags[one].total_cmp(&tags[two])) else { break };
        shares[next] += 1;
        tags[next] += 1.0 / tenants[next].1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_by_weight_and_by_whose_turn_it_is() {
        assert_eq!(share(4, &[(0.0, 1.0), (0.0, 3.0)]), [1, 3]);
        assert_eq!(share(3, &[(5.0, 1.0), (5.0, 1.0), (5.0, 1.0)]), [1, 1, 1]);
        assert_eq!(share(2, &[(7.0, 1.0), (0.0, 1.0)]), [0, 2], "who is behind catches up");
        assert_eq!(share(3, &[]), Vec::<usize>::new());
    }

    #[test]
    fn it_grows_while_tenants_wait_and_shrinks_when_none_does() {
        let balance = Balance { min_processes: 1, max_processes: 4, ..Balance::default() };
        assert_eq!(balance.next(1, 1, true), 2);
        assert_eq!(balance.next(4, 4, true), 4, "never above its most");
        assert_eq!(balance.next(3, 2, true), 3, "somebody is free: no need");
        assert_eq!(balance.next(3, 3, false), 3, "all are at work");
        assert_eq!(balance.next(3, 0, false), 2);
        assert_eq!(balance.next(1, 0, false), 1, "never below its fewest");
        let faster = Balance { max_shift: 3, ..balance };
        assert_eq!(faster.next(1, 1, true), 4);
        assert_eq!(faster.next(4, 3, false), 3, "nobody at work is sent away");
    }
}
