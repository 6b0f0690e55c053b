//! Which part of a cluster a key belongs to.

use ::redis::{Arg, Cmd};

/// Slots of a cluster.
const SLOTS: u16 = 16384;
/// Neighbouring slots that are watched together. Nodes own ranges of slots, so that a group nearly always has one node.
const GROUP: u16 = 256;

/// Number of groups.
pub(super) const GROUPS: usize = (SLOTS / GROUP) as usize;

/// The group of a key.
pub(super) fn group(key: &[u8]) -> usize {
    usize::from(of(key) / GROUP)
}

/// A key's slot: CRC-16 (XMODEM) of what stands between the first braces, or of the whole key.
pub(super) fn of(key: &[u8]) -> u16 {
    hash_tag(key).unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    }) % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let begin = key.iter().position(|byte| *byte == b'{')? + 1;
    let length = key[begin..].iter().position(|byte| *byte == b'}')?;
    (length > 0).then(|| &key[begin..begin + length])
}

/// The first key of a command: its first argument, or that of a script.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = command.args_iter().filter_map(|argument| match argument {
        Arg::Simple(text) => Some(text),
        _ => None,
    });
    match arguments.next()? {
        b"EVAL" | b"EVALSHA" => arguments.nth(2),
        _ => arguments.next(),
    }
}

#[cfg(test)]
mod tests {
    use ::redis::cluster_routing::Slot;

    use super::*;

    #[test]
    fn slots_are_those_that_the_client_computes() {
        for key in ["", "a", "tenant:1:x", "{tenant:1}:x", "sess:{tenant:1}:y", "{}a", "a{b", "a}b{c}d", "ä{ö}ü"] {
            assert_eq!(Slot::new(of(key.as_bytes())), Some(Slot::for_key(key)), "{key}");
        }
        assert_eq!(of(b"123456789"), 0x31c3, "the checksum's known value");
    }

    #[test]
    fn the_key_of_a_script_is_behind_its_hash_and_count() {
        let get = ::redis::cmd("GET").arg("key").to_owned();
        let script = ::redis::cmd("EVALSHA").arg("hash").arg(1).arg("key").arg("value").to_owned();
        assert_eq!((key_of(&get), key_of(&script)), (Some(&b"key"[..]), Some(&b"key"[..])));
        assert_eq!(key_of(&::redis::cmd("PING")), None);
    }
}
