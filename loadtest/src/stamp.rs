//! What an event's `id` says: who sent it, as which of his, and when it was to be sent. So the end-to-end latency and
//! the order can be told from a delivered event alone, whatever the schema of its data.

use memchr::memmem::Finder;

/// Length of an `id` in bytes: four hexadecimal numbers of fixed width with dashes between.
pub const ID_BYTES: usize = 8 + 1 + 4 + 1 + 10 + 1 + 12;

/// The `id` of an event, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Drawn at random by each run: events of other runs are told by it.
    pub run: u32,
    /// Counted from 0, below 2^16.
    pub producer: usize,
    /// Counted from 0 by each producer, below 2^40.
    pub sequence: u64,
    /// Nanoseconds after the start of the run at which the event was to be sent, below 2^48.
    pub intended_ns: u64,
}

impl Stamp {
    /// Writes the `id` into `out`, which is [`ID_BYTES`] long.
    pub fn write(&self, out: &mut [u8]) {
        write_hex(&mut out[0..8], u64::from(self.run));
        out[8] = b'-';
        write_hex(&mut out[9..13], self.producer as u64);
        out[13] = b'-';
        write_hex(&mut out[14..24], self.sequence);
        out[24] = b'-';
        write_hex(&mut out[25..37], self.intended_ns);
    }

    /// The stamp of a delivered event of `run`; `None` for the events of anybody else.
    pub fn find(run: &RunMark, event: &[u8]) -> Option<Self> {
        let start = run.needle.find(event)? + run.needle.needle().len() - 9;
        let id = event.get(start..start + ID_BYTES)?;
        Some(Self {
            run: run.run,
            producer: read_hex(&id[9..13])? as usize,
            sequence: read_hex(&id[14..24])?,
            intended_ns: read_hex(&id[25..37])?,
        })
    }
}

/// The digits of the `offset` with which every delivered event ends.
pub fn offset(event: &[u8]) -> Option<&[u8]> {
    let event = event.strip_suffix(b"\"}")?;
    let digits = event.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, digits) = event.split_at(event.len() - digits);
    (before.ends_with(b"\"offset\":\"") && (1..=20).contains(&digits.len())).then_some(digits)
}

/// What the events of one run are found by.
#[derive(Debug, Clone)]
pub struct RunMark {
    pub run: u32,
    needle: Finder<'static>,
}

impl RunMark {
    pub fn new(run: u32) -> Self {
        Self { run, needle: Finder::new(&format!("\"id\":\"{run:08x}-")).into_owned() }
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// Writes `number` in lower-case hexadecimal, filled up with zeros; digits that do not fit are cut.
pub fn write_hex(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_in_an_event_and_says_what_was_written() {
        let stamp = Stamp { run: 0xbeef, producer: 513, sequence: (1 << 40) - 1, intended_ns: (1 << 48) - 7 };
        let mut id = [0; ID_BYTES];
        stamp.write(&mut id);
        let event =
            format!(r#"{{"source":"urn:demo","id":"{}","data":1}}"#, std::str::from_utf8(&id).unwrap());
        assert_eq!(Stamp::find(&RunMark::new(0xbeef), event.as_bytes()), Some(stamp));
        assert_eq!(Stamp::find(&RunMark::new(0xbeee), event.as_bytes()), None);
    }

    #[test]
    fn an_event_that_only_looks_like_ours_is_not() {
        for event in [r#"{"id":"0000beef-"}"#, r#"{"id":"0000beef-0001-zzzzzzzzzz-000000000000"}"#] {
            assert_eq!(Stamp::find(&RunMark::new(0xbeef), event.as_bytes()), None);
        }
    }

    #[test]
    fn the_offset_is_found_at_the_end_and_nowhere_else() {
        assert_eq!(offset(br#"{"id":"1","data":{},"offset":"17"}"#), Some(&b"17"[..]));
        for other in [r#"{"offset":"17","id":"1"}"#, r#"{"data":"17"}"#, r#"{"offset":""}"#, ""] {
            assert_eq!(offset(other.as_bytes()), None, "{other}");
        }
    }
}
