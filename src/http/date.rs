//! The `Date` header (RFC 9110, 6.6.1), written once a second and copied from then on.

use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

/// Bytes of an IMF-fixdate (RFC 9110, 5.6.7).
const BYTES: usize = 29;

const IMF_FIXDATE: StaticFormatDescription =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// The date as of the second it was last asked for.
#[derive(Clone, Debug, Default)]
pub struct HttpDate {
    unix_s: u64,
    text: [u8; BYTES],
}

impl HttpDate {
    /// `Sun, 06 Nov 1994 08:49:37 GMT` for a time in Unix seconds. Times after the year 9999 read as the epoch.
    pub fn at(&mut self, unix_s: u64) -> &[u8; BYTES] {
        if self.unix_s != unix_s || self.text[0] == 0 {
            self.text = format(unix_s);
            self.unix_s = unix_s;
        }
        &self.text
    }
}

fn format(unix_s: u64) -> [u8; BYTES] {
    let seconds = i64::try_from(unix_s).unwrap_or(0);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut text = [b' '; BYTES];
    moment.format_into(&mut &mut text[..], IMF_FIXDATE).expect("an IMF-fixdate is 29 bytes");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_written_as_it_stands_there() {
        assert_eq!(HttpDate::default().at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn the_text_follows_the_second_it_is_asked_for() {
        let mut date = HttpDate::default();
        assert_eq!(date.at(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date.at(1), b"Thu, 01 Jan 1970 00:00:01 GMT");
        assert_eq!(date.at(1), b"Thu, 01 Jan 1970 00:00:01 GMT");
        assert_eq!(date.at(u64::MAX), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
