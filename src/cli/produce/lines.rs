//! The input of `nistru produce`, read on a thread of its own so that what is there is sent while more is awaited.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Lines read ahead. A line is at most as long as a request, so this also bounds memory.
const LINES_AHEAD: usize = 64;

/// One piece of input and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    pub bytes: Vec<u8>,
}

/// Why the input ends early.
#[derive(Debug)]
pub enum InputError {
    Read(io::Error),
    TooLong { line: u64, bytes_max: usize },
}

impl std::fmt::Display for InputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot read the input: {error}"),
            Self::TooLong { line, bytes_max } => write!(f, "line {line}: longer than {bytes_max} bytes"),
        }
    }
}

/// Starts to read. The thread ends with the input, or when the receiver is gone and the next line comes.
pub fn read_ahead(
    input: impl BufRead + Send + 'static,
    bytes_max: usize,
    whole: bool,
) -> Receiver<Result<Line, InputError>> {
    let (sender, receiver) = sync_channel(LINES_AHEAD);
    thread::spawn(move || {
        if whole {
            let _ = sender.send(read_whole(input, bytes_max));
        } else {
            send_lines(input, bytes_max, &sender);
        }
    });
    receiver
}

fn send_lines(mut input: impl BufRead, bytes_max: usize, sender: &SyncSender<Result<Line, InputError>>) {
    let mut number = 0;
    loop {
        number += 1;
        let line = read_line(&mut input, number, bytes_max);
        let failed = line.is_err();
        let Some(line) = line.transpose() else { return };
        let blank = matches!(&line, Ok(line) if line.bytes.trim_ascii().is_empty());
        if (!blank && sender.send(line).is_err()) || failed {
            return;
        }
    }
}

/// The next line without its end, or `None` at the end of the input.
fn read_line(input: &mut impl BufRead, number: u64, bytes_max: usize) -> Result<Option<Line>, InputError> {
    let mut bytes = Vec::new();
    // Two bytes more than a line may have: its end.
    let limit = bytes_max as u64 + 2;
    input.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(InputError::Read)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop_if(|byte| *byte == b'\n').is_some() {
        bytes.pop_if(|byte| *byte == b'\r');
    }
    if bytes.len() > bytes_max {
        return Err(InputError::TooLong { line: number, bytes_max });
    }
    Ok(Some(Line { number, bytes }))
}

fn read_whole(input: impl Read, bytes_max: usize) -> Result<Line, InputError> {
    let mut bytes = Vec::new();
    input.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(InputError::Read)?;
    if bytes.len() > bytes_max {
        return Err(InputError::TooLong { line: 1, bytes_max });
    }
    Ok(Line { number: 1, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn lines(input: &'static [u8], bytes_max: usize, whole: bool) -> Vec<Result<(u64, Vec<u8>), String>> {
        let received = read_ahead(Cursor::new(input), bytes_max, whole).into_iter();
        received
            .map(|line| line.map(|line| (line.number, line.bytes)).map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn lines_keep_their_numbers_and_lose_their_ends() {
        let expected = [Ok((1, b"{}".to_vec())), Ok((3, b"[1]".to_vec())), Ok((4, b"x\ry".to_vec()))];
        assert_eq!(lines(b"{}\r\n  \n[1]\nx\ry", 8, false), expected);
    }

    #[test]
    fn a_line_that_fits_exactly_passes_and_a_longer_one_ends_the_input() {
        let expected = [Ok((1, b"1234".to_vec())), Err("line 2: longer than 4 bytes".to_owned())];
        assert_eq!(lines(b"1234\r\n12345\n1\n", 4, false), expected);
    }

    #[test]
    fn the_whole_input_is_one_piece_with_everything_in_it() {
        assert_eq!(lines(b"a\n\n\0b\n", 6, true), [Ok((1, b"a\n\n\0b\n".to_vec()))]);
        assert_eq!(lines(b"a\n\n\0b\n", 5, true), [Err("line 1: longer than 5 bytes".to_owned())]);
    }
}
