//! The values of settings: numbers, durations, sizes, addresses, paths.

use super::document::{Measure, Setting};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// A size: `65536`, `"64 KiB"`, `"1 MiB"`, `"2 GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const SIZE_UNITS: [(&str, u64); 5] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];
/// In milliseconds, the longest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `number unit`, with or without a blank between them.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The largest unit that divides `amount`, and how often.
fn in_largest_unit<'u>(amount: u64, units: &[(&'u str, u64)]) -> (u64, &'u str) {
    let fits = |(_, factor): &&(&str, u64)| amount != 0 && amount.is_multiple_of(*factor);
    units
        .iter()
        .find(fits)
        .map_or((amount, units[units.len() - 1].0), |(name, factor)| (amount / factor, name))
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Setting for Bytes {
    const EXPECTED: &'static str = "a size such as \"64 KiB\" or 65536";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        let bytes = value.as_str().and_then(|text| measured(text.trim(), &SIZE_UNITS));
        bytes.or_else(|| integer(value)).map(Self)
    }
}

impl Measure for Bytes {
    fn written(&self) -> String {
        let (number, unit) = in_largest_unit(self.0, &SIZE_UNITS[..4]);
        format!("{number} {unit}")
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as \"120h\", \"30s\" or \"500ms\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        measured(value.as_str()?.trim(), &TIME_UNITS).map(Self::from_millis)
    }
}

impl Measure for Duration {
    fn written(&self) -> String {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let (number, unit) = in_largest_unit(millis, &TIME_UNITS[1..]);
        format!("{number}{unit}")
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = "a whole number";

            fn of(value: &DeValue<'_>) -> Option<Self> {
                integer(value).and_then(|number| number.try_into().ok())
            }
        }

        impl Measure for $type {
            fn written(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

number!(u64, usize);

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().filter(|text| !text.is_empty()).map(Self::from)
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"0.0.0.0:8443\" or \"[::]:8443\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        let size = |text: &str| measured(text, &SIZE_UNITS);
        assert_eq!(size("64 KiB"), Some(65_536));
        assert_eq!(size("1MiB"), Some(1 << 20));
        assert_eq!(size("17"), Some(17));
        let time = |text: &str| measured(text, &TIME_UNITS);
        assert_eq!(time("120h"), Some(432_000_000));
        assert_eq!(time("5 d"), time("120h"));
        assert_eq!(time("500ms"), Some(500));
    }

    #[test]
    fn sizes_and_durations_without_sense_are_refused() {
        for text in ["", "KiB", "1 KB", "-1 KiB", "1.5 MiB", "20000000000 GiB", "1 KiB x"] {
            assert_eq!(measured(text, &SIZE_UNITS), None, "{text}");
        }
        for text in ["30", "1 hour", "s", "99999999999999999d"] {
            assert_eq!(measured(text, &TIME_UNITS), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [0, 1, 1000, 1024, 65_536, 3 << 20, 5 << 30] {
            assert_eq!(measured(&Bytes(bytes).written(), &SIZE_UNITS), Some(bytes));
        }
        for millis in [0, 1, 1500, 30_000, 120_000, 432_000_000] {
            assert_eq!(measured(&Duration::from_millis(millis).written(), &TIME_UNITS), Some(millis));
        }
        assert_eq!(Duration::from_secs(432_000).written(), "120h");
        assert_eq!(Bytes(65_536).written(), "64 KiB");
    }
}
