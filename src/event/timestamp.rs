//! RFC 3339 timestamps, the `time` attribute.

use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time, as its producer wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp<'a> {
    /// RFC 3339 with upper-case `T` and `Z`, otherwise as produced: any offset, any number of fraction digits.
    pub text: Cow<'a, str>,
    /// Unix milliseconds, rounded down.
    pub ms: i64,
}

impl<'a> Timestamp<'a> {
    /// Reads a `date-time` of RFC 3339, section 5.6. The separator must be `T` or `t`, as the grammar there has it.
    pub fn read(text: Cow<'a, str>) -> Option<Self> {
        if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
            return None;
        }
        let moment = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
        let ms = moment.unix_timestamp() * 1000 + i64::from(moment.millisecond());
        let lower = text.bytes().any(|byte| byte.is_ascii_lowercase());
        let text = if lower { Cow::Owned(text.to_ascii_uppercase()) } else { text };
        Some(Self { text, ms })
    }
}

/// `ms` since the Unix epoch in UTC with milliseconds, as `2026-01-31T23:59:59.999Z`. Years beyond 9999 are cut to it.
pub fn utc(ms: u64) -> [u8; 24] {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(ms / 1000).unwrap_or(LAST).min(LAST);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second) = moment.to_hms();
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let fields = [
        (0..4, year.unsigned_abs()),
        (5..7, u8::from(month).into()),
        (8..10, day.into()),
        (11..13, hour.into()),
        (14..16, minute.into()),
        (17..19, second.into()),
        (20..23, (ms % 1000) as u32),
    ];
    for (place, number) in fields {
        let mut rest = number;
        for digit in text[place].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<i64> {
        Timestamp::read(text.into()).map(|read| read.ms)
    }

    #[test]
    fn offsets_and_fractions_are_understood() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.001Z", 1),
            ("1970-01-01T02:00:00+02:00", 0),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("1990-12-31T23:59:60Z", 662_687_999_999),
            ("2024-02-29T12:00:00.123456789-05:30", 1_709_227_800_123),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
        ] {
            assert_eq!(ms(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        for text in [
            "",
            "2024-01-01",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00Z",
            "2024-1-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+25:00",
            "2024-01-01T00:00:00+0200",
            "2024-01-01T00:00:00Z ",
            "+2024-01-01T00:00:00Z",
            "12024-01-01T00:00:00Z",
            "2024-01-01T00:00:00Ж",
        ] {
            assert_eq!(ms(text), None, "{text}");
        }
    }

    #[test]
    fn letters_become_upper_case_and_nothing_else_changes() {
        let read = |text: &'static str| Timestamp::read(text.into()).unwrap().text;
        assert_eq!(read("2024-01-01t00:00:00.120z"), "2024-01-01T00:00:00.120Z");
        assert!(matches!(read("2024-01-01T00:00:00.120+00:00"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_written_reads_back() {
        for at in [0, 1, 999, 1_709_210_096_789, 253_402_300_799_999] {
            assert_eq!(ms(std::str::from_utf8(&utc(at)).unwrap()), Some(at as i64));
        }
        assert_eq!(&utc(1_709_210_096_789), b"2024-02-29T12:34:56.789Z");
        assert_eq!(&utc(u64::MAX), b"9999-12-31T23:59:59.615Z");
    }
}
