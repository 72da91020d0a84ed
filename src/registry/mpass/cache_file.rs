//! The clients that are known, in a file: a broker that starts while the API is down goes on serving them.

use super::answer::{self, Found};
use super::settings::Bounds;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Name of the file in the data directory.
pub const FILE: &str = "mpass.clients";
/// First word of the file; the checksum of what follows the line comes after it.
const MAGIC: &str = "nistru-mpass-clients-1";

/// A client and when it was answered.
#[derive(Debug, Clone)]
pub struct Remembered {
    pub found: Found,
    /// Unix milliseconds.
    pub answered_ms: u64,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    answered_ms: u64,
    #[serde(borrow)]
    answer: Cow<'a, str>,
}

/// Writes the file whole, under another name first. Blocks.
pub fn write(dir: &Path, clients: &[Remembered]) -> io::Result<()> {
    let mut body = String::new();
    for Remembered { found, answered_ms } in clients {
        let line = Line { answered_ms: *answered_ms, answer: Cow::Borrowed(&found.answer) };
        body += &serde_json::to_string(&line).map_err(io::Error::other)?;
        body.push('\n');
    }
    let text = format!("{MAGIC} {:08x}\n{body}", crc32fast::hash(body.as_bytes()));
    let draft = dir.join(format!("{FILE}.draft"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(FILE))?;
    fs::File::open(dir)?.sync_all()
}

/// Reads the file; none is the same as empty. What cannot be used is left out and `note` hears of it: this is a memory, the
/// truth is elsewhere. Blocks.
pub fn read(dir: &Path, bounds: &Bounds, mut note: impl FnMut(String)) -> Vec<Remembered> {
    let text = match fs::read_to_string(dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            note(format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let Some(body) = checked(&text) else {
        note("is damaged, or of another version".into());
        return Vec::new();
    };
    body.lines().filter_map(|line| remembered(line, bounds).map_err(&mut note).ok()).collect()
}

fn checked(text: &str) -> Option<&str> {
    let (head, body) = text.split_once('\n')?;
    let sum = head.strip_prefix(MAGIC)?.strip_prefix(' ')?;
    (u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(body.as_bytes()))).then_some(body)
}

fn remembered(line: &str, bounds: &Bounds) -> Result<Remembered, String> {
    let line: Line<'_> =
        serde_json::from_str(line).map_err(|error| format!("has a line that is no client: {error}"))?;
    match answer::read(line.answer.as_bytes(), bounds, |_| ()) {
        Ok(found) => Ok(Remembered { found, answered_ms: line.answered_ms }),
        Err(problems) => Err(format!("has a client that cannot be used any more: {}", problems.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::answer;
    use super::super::settings::tests::bounds;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn client(n: u8) -> Remembered {
        let found = answer::read(answer(n, &["1"]).to_string().as_bytes(), &bounds(), |_| ()).unwrap();
        Remembered { found, answered_ms: u64::from(n) }
    }

    fn read_all(dir: &Path) -> (Vec<(String, u64)>, Vec<String>) {
        let mut notes = Vec::new();
        let read = read(dir, &bounds(), |text| notes.push(text));
        (read.into_iter().map(|one| (one.found.client.name.clone(), one.answered_ms)).collect(), notes)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_all(dir.path()), (vec![], vec![]));
        write(dir.path(), &[client(1), client(2)]).unwrap();
        assert_eq!(read_all(dir.path()).0, [("client 1".to_owned(), 1), ("client 2".to_owned(), 2)]);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        write(dir.path(), &[client(3)]).unwrap();
        assert_eq!(read_all(dir.path()).0, [("client 3".to_owned(), 3)]);
    }

    #[test]
    fn a_damaged_file_is_told_and_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[client(1)]).unwrap();
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for at in [0, MAGIC.len() + 2, good.len() - 3] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            let (clients, notes) = read_all(dir.path());
            assert!(clients.is_empty() && notes.len() == 1, "{at}: {clients:?} {notes:?}");
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        assert_eq!(read_all(dir.path()).1.len(), 1);
    }
}
