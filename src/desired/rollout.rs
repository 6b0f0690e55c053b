//! Which tenants a schema rollout begins next, and how far it is.
//!
//! From      `SchemaRollout.spec`, the version of every tenant's database as marks and ledger tell it
//! Makes     a list of tenants to migrate now; nothing is decided twice, because what is done shows in the versions
//! Ready     when every tenant has the version
//!
//! Nothing of it has to survive an operator but the times at which waves ended, which the status holds.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::api::rollout::{RolloutPhase, SchemaRolloutSpec, Wave};
use crate::settings::parse_duration;

/// A tenant that has a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The tenant.
    pub uuid: Uuid,
    /// Value of its label `ring`.
    pub ring: Option<String>,
    /// Where its database lies.
    pub server: String,
    /// Version of its schema.
    pub version: String,
    /// How it stands beside its version.
    pub state: MemberState,
}

/// How a tenant stands in a rollout, beside its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Nothing is done to it.
    Idle,
    /// It is being migrated, or waits to be tried again.
    Running,
    /// Its migration failed for good.
    Failed,
    /// Its server cannot be used now.
    Unreachable,
}

/// How far a rollout is, and what comes next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Tenants to begin now.
    pub begin: Vec<Uuid>,
    /// The phase.
    pub phase: RolloutPhase,
    /// Number (from 0) and name of the wave that is under way.
    pub wave: Option<(usize, String)>,
    /// Waves with the last one, which takes who is left.
    pub waves: usize,
    /// Waves that ended just now.
    pub ended: Vec<String>,
    /// All tenants.
    pub total: usize,
    /// Those that have the version or a later one.
    pub done: usize,
    /// Those that failed.
    pub failed: usize,
    /// When the wave was watched long enough.
    pub soaks_until: Option<Timestamp>,
}

/// The wave of those that no other takes.
const REST: &str = "rest";

/// What comes next. `ended`: when waves ended that are done.
pub fn decide(
    spec: &SchemaRolloutSpec,
    target: &str,
    members: &[Member],
    ended: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> Progress {
    let waves = sorted_into_waves(&spec.waves, members);
    let is_open = |member: &&Member| member.version.as_str() < target && member.state != MemberState::Failed;
    let failed = |member: &&Member| member.version.as_str() < target && member.state == MemberState::Failed;
    let mut progress = Progress {
        waves: waves.len(),
        total: members.len(),
        done: members.iter().filter(|member| member.version.as_str() >= target).count(),
        failed: members.iter().filter(failed).count(),
        ..Progress::default()
    };
    for (number, (wave, members)) in waves.iter().enumerate() {
        let open: Vec<_> = members.iter().copied().filter(is_open).collect();
        if open.is_empty() {
            let at = *ended.get(&wave.name).unwrap_or(&now);
            if !ended.contains_key(&wave.name) {
                progress.ended.push(wave.name.clone());
            }
            let is_last = waves[number + 1..].iter().all(|(_, members)| !members.iter().any(&is_open));
            let until = at + soak(wave);
            if is_last || until <= now || members.is_empty() {
                continue;
            }
            progress.wave = Some((number, wave.name.clone()));
            progress.soaks_until = Some(until);
            progress.phase = stopped(spec, &progress).unwrap_or(RolloutPhase::Soaking);
            return progress;
        }
        progress.wave = Some((number, wave.name.clone()));
        progress.phase = stopped(spec, &progress).unwrap_or(RolloutPhase::Running);
        if progress.phase == RolloutPhase::Running {
            progress.begin = next(spec, members, &open);
        }
        return progress;
    }
    progress.phase = match progress.failed {
        0 => RolloutPhase::Complete,
        _ => RolloutPhase::Failed,
    };
    progress
}

/// Why no further tenant is begun.
fn stopped(spec: &SchemaRolloutSpec, progress: &Progress) -> Option<RolloutPhase> {
    let allowed = usize::try_from(spec.max_failures).unwrap_or_default();
    if spec.aborted {
        Some(RolloutPhase::Aborted)
    } else if spec.paused {
        Some(RolloutPhase::Paused)
    } else if progress.failed > allowed {
        Some(RolloutPhase::Held)
    } else {
        None
    }
}

/// Fills every server up to what may run on it at a time.
fn next(spec: &SchemaRolloutSpec, members: &[&Member], open: &[&Member]) -> Vec<Uuid> {
    let most = usize::try_from(spec.max_parallel).unwrap_or(1).max(1);
    let mut running: BTreeMap<&str, usize> = BTreeMap::new();
    for member in members.iter().filter(|member| member.state == MemberState::Running) {
        *running.entry(&member.server).or_default() += 1;
    }
    let idle = open.iter().filter(|member| member.state == MemberState::Idle);
    idle.filter(|member| {
        let there = running.entry(&member.server).or_default();
        *there += 1;
        *there <= most
    })
    .map(|member| member.uuid)
    .collect()
}

fn soak(wave: &Wave) -> SignedDuration {
    let soak = wave.soak.as_deref().and_then(|soak| parse_duration(soak).ok()).unwrap_or_default();
    SignedDuration::try_from(soak).unwrap_or(SignedDuration::MAX)
}

/// Every tenant in the first wave that takes it.
fn sorted_into_waves<'a>(waves: &[Wave], members: &'a [Member]) -> Vec<(Wave, Vec<&'a Member>)> {
    let rest = Wave { name: REST.into(), ..Wave::default() };
    let mut sorted: Vec<_> = waves.iter().chain([&rest]).map(|wave| (wave.clone(), Vec::new())).collect();
    for member in members {
        let place = sorted.iter().position(|(wave, _)| takes(wave, member)).unwrap_or(waves.len());
        sorted[place].1.push(member);
    }
    if sorted.last().is_some_and(|(_, members)| members.is_empty()) && !waves.is_empty() {
        sorted.pop();
    }
    sorted
}

fn takes(wave: &Wave, member: &Member) -> bool {
    match (&wave.ring, wave.percent) {
        (Some(ring), _) => member.ring.as_ref() == Some(ring),
        // The last bytes, because slices are cut by the first.
        (None, Some(percent)) => member.uuid.as_u128() % 100 < u128::try_from(percent).unwrap_or_default(),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn spec(waves: Vec<Wave>) -> SchemaRolloutSpec {
        SchemaRolloutSpec {
            target_version: None,
            waves,
            max_parallel: 2,
            max_failures: 1,
            lock_timeout: "2s".into(),
            statement_timeout: "30m".into(),
            paused: false,
            aborted: false,
        }
    }

    fn members(count: u128) -> Vec<Member> {
        let member = |number: u128| Member {
            uuid: Uuid::from_u128(number),
            ring: (number < 3).then(|| "canary".to_owned()),
            server: format!("pg-{}", number % 2),
            version: "0004".into(),
            state: MemberState::Idle,
        };
        (0..count).map(member).collect()
    }

    fn canary(soak: Option<&str>) -> Wave {
        Wave { name: "canary".into(), ring: Some("canary".into()), percent: None, soak: soak.map(Into::into) }
    }

    /// Runs to the end; how often each tenant was begun, and the most that ran on one server at a time.
    fn run(
        spec: &SchemaRolloutSpec,
        members: &mut [Member],
        fails: impl Fn(Uuid) -> bool,
    ) -> (Progress, BTreeMap<Uuid, usize>) {
        let (mut begun, mut ended, mut now) = (BTreeMap::new(), BTreeMap::new(), NOW);
        for _ in 0..10_000 {
            let progress = decide(spec, "0006", members, &ended, now);
            for wave in &progress.ended {
                ended.insert(wave.clone(), now);
            }
            if let Some(until) = progress.soaks_until {
                now = until;
            }
            let mut there: BTreeMap<String, usize> = BTreeMap::new();
            for member in members.iter_mut().filter(|member| progress.begin.contains(&member.uuid)) {
                assert!(member.version.as_str() < "0006", "a current one is begun");
                *begun.entry(member.uuid).or_default() += 1;
                *there.entry(member.server.clone()).or_default() += 1;
                if fails(member.uuid) {
                    member.state = MemberState::Failed;
                } else {
                    member.version = "0006".into();
                }
            }
            assert!(there.values().all(|count| *count <= 2), "{there:?}");
            if progress.begin.is_empty() && progress.soaks_until.is_none() {
                return (progress, begun);
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn every_tenant_is_begun_once_in_its_wave_and_current_ones_never() {
        let mut all = members(50);
        all[7].version = "0006".into();
        all[8].version = "0009".into();
        let (progress, begun) = run(&spec(vec![canary(Some("1h"))]), &mut all, |_| false);
        assert_eq!((progress.phase, progress.done, progress.total), (RolloutPhase::Complete, 50, 50));
        assert_eq!(begun.len(), 48);
        assert!(begun.values().all(|times| *times == 1));
    }

    #[test]
    fn the_next_wave_begins_when_the_one_before_is_done_and_was_watched() {
        let spec = spec(vec![canary(Some("1h"))]);
        let mut all = members(10);
        let ended = BTreeMap::new();
        let first = decide(&spec, "0006", &all, &ended, NOW);
        assert_eq!(first.begin, [0, 1, 2].map(Uuid::from_u128), "two a server, and only the canaries");
        all[..2].iter_mut().for_each(|member| member.version = "0006".into());
        all[2].state = MemberState::Running;
        let waiting = decide(&spec, "0006", &all, &ended, NOW);
        assert_eq!((waiting.begin.len(), waiting.phase), (0, RolloutPhase::Running));
        all[2].version = "0006".into();
        let soaking = decide(&spec, "0006", &all, &ended, NOW);
        assert_eq!((soaking.phase, &soaking.ended), (RolloutPhase::Soaking, &vec!["canary".to_owned()]));
        let ended = BTreeMap::from([("canary".to_owned(), NOW)]);
        let later = NOW + SignedDuration::from_secs(3599);
        assert_eq!(decide(&spec, "0006", &all, &ended, later).phase, RolloutPhase::Soaking);
        let later = NOW + SignedDuration::from_hours(1);
        let next = decide(&spec, "0006", &all, &ended, later);
        assert_eq!((next.phase, next.begin.len()), (RolloutPhase::Running, 4));
        assert_eq!(next.wave, Some((1, "rest".to_owned())));
    }

    #[test]
    fn it_goes_on_after_failures_up_to_the_limit_and_no_further() {
        let failing = |uuid: Uuid| uuid.as_u128() < 1;
        let (progress, _) = run(&spec(vec![]), &mut members(40), failing);
        assert_eq!((progress.phase, progress.done, progress.failed), (RolloutPhase::Failed, 39, 1));
        let failing = |uuid: Uuid| uuid.as_u128().is_multiple_of(5);
        let (progress, begun) = run(&spec(vec![]), &mut members(40), failing);
        assert_eq!(progress.phase, RolloutPhase::Held);
        assert!(begun.len() < 16, "{} were begun", begun.len());
    }

    #[test]
    fn nothing_is_begun_while_it_is_paused_or_after_it_was_aborted() {
        for (paused, aborted, phase) in [(true, false, RolloutPhase::Paused), (true, true, RolloutPhase::Aborted)] {
            let spec = SchemaRolloutSpec { paused, aborted, ..spec(vec![canary(None)]) };
            let progress = decide(&spec, "0006", &members(9), &BTreeMap::new(), NOW);
            assert_eq!((progress.phase, progress.begin), (phase, vec![]));
        }
    }

    #[test]
    fn a_percentage_takes_about_so_many_and_a_larger_one_takes_them_too() {
        let mut members = members(2000);
        for member in &mut members {
            member.uuid = Uuid::new_v4();
        }
        let chosen = |percent| {
            let wave = Wave { name: "some".into(), percent: Some(percent), ..Wave::default() };
            members.iter().filter(|member| takes(&wave, member)).map(|member| member.uuid).collect::<Vec<_>>()
        };
        let (few, many) = (chosen(5), chosen(25));
        assert!((50..170).contains(&few.len()) && (400..620).contains(&many.len()), "{} {}", few.len(), many.len());
        assert!(few.iter().all(|uuid| many.contains(uuid)));
    }

    #[test]
    fn a_tenant_whose_server_is_away_is_waited_for_and_not_begun() {
        let mut all = members(4);
        all[0].state = MemberState::Unreachable;
        all[1..].iter_mut().for_each(|member| member.version = "0006".into());
        let progress = decide(&spec(vec![]), "0006", &all, &BTreeMap::new(), NOW);
        assert_eq!((progress.phase, progress.begin), (RolloutPhase::Running, vec![]));
    }
}
