//! Reading one file from its first byte to its last: the chain, the order of its lines, and what its end means.

use super::chain::Link;
use super::line::{Header, LINE_BYTES_MAX, Line};
use crate::journal::disk::DiskFile;
use std::io::{self, BufRead, BufReader, Read};

/// What a file is.
#[derive(Debug)]
pub struct Scan {
    /// The header; `None` when there is no sound one.
    pub header: Option<Header>,
    /// Bytes up to which everything is sound.
    pub bytes: u64,
    /// The link after them.
    pub link: Link,
    /// Number of the record that would follow.
    pub next_seq: u64,
    /// Records in them.
    pub records: u64,
    /// What is wrong behind them.
    pub fault: Option<Fault>,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the line, from 1.
    pub line: u64,
    pub what: &'static str,
    /// The line had been durable, or is one of those with which a file is begun: no crash leaves it so.
    pub was_durable: bool,
}

/// Receives the lines of a scan.
pub trait Lines {
    /// A sound line, and the bytes of the file up to its end.
    fn sound(&mut self, line: Line, end: u64);
    /// A line behind the first one that is not sound, as far as it can be read.
    fn behind_fault(&mut self, _line: Line) {}
}

/// For a scan whose result is all that is wanted.
pub struct Unheard;

impl Lines for Unheard {
    fn sound(&mut self, _line: Line, _end: u64) {}
}

/// Reads `file`, or its first `bytes_max` bytes. An error is one of reading.
pub fn scan(file: &impl DiskFile, bytes_max: u64, lines: &mut impl Lines) -> io::Result<Scan> {
    let mut reader = LineReader::new(file, bytes_max)?;
    let mut scan = Scan { header: None, bytes: 0, link: Link::FIRST, next_seq: 0, records: 0, fault: None };
    let mut marks_left = 0;
    while let Some(line) = reader.next()? {
        match scan.check(line, &mut marks_left) {
            Ok(line) => {
                scan.bytes = reader.at;
                lines.sound(line, reader.at);
            }
            Err(what) => {
                let first = Line::read(line.trim_ascii_end());
                let was_durable = scan.header.is_none() || marks_left > 0;
                let fault = Fault { line: reader.number, what, was_durable };
                scan.fault = Some(scan.look_behind(fault, first, &mut reader, lines)?);
                break;
            }
        }
    }
    if scan.fault.is_none() && (scan.header.is_none() || marks_left > 0) {
        let fault = Fault { line: reader.number + 1, what: "the file ends too early", was_durable: true };
        scan.fault = Some(fault);
    }
    Ok(scan)
}

impl Scan {
    /// Sound lines.
    pub fn lines(&self) -> u64 {
        self.header.as_ref().map_or(0, |header| 1 + header.marks as u64 + self.records)
    }

    fn check(&mut self, line: &[u8], marks_left: &mut usize) -> Result<Line, &'static str> {
        let Some(line) = line.strip_suffix(b"\n") else { return Err("the line is not complete") };
        let read = Line::read(line).ok_or("not a line of this format")?;
        let before = match (&self.header, &read) {
            (None, Line::Header(header)) => header.previous,
            _ => self.link,
        };
        let link = before.follow(line).ok_or("the chain is broken")?;
        match (&self.header, &read) {
            (None, Line::Header(header)) => {
                (*marks_left, self.next_seq) = (header.marks, header.first_seq);
                self.header = Some(header.clone());
            }
            (Some(_), Line::Marks(_)) if *marks_left > 0 => *marks_left -= 1,
            (Some(_), Line::Record(record)) if *marks_left == 0 && record.seq == self.next_seq => {
                self.next_seq += 1;
                self.records += 1;
            }
            _ => return Err("the line is not the one expected here"),
        }
        self.link = link;
        Ok(read)
    }

    /// Reads on behind a fault: if a later line says that the bytes before it were durable, the fault was made afterwards.
    fn look_behind<F: DiskFile>(
        &self,
        mut fault: Fault,
        first: Option<Line>,
        reader: &mut LineReader<'_, F>,
        lines: &mut impl Lines,
    ) -> io::Result<Fault> {
        let mut next = first;
        loop {
            if let Some(line) = next {
                fault.was_durable |= matches!(&line, Line::Record(record) if record.synced > self.bytes);
                lines.behind_fault(line);
            }
            match reader.next()? {
                Some(line) => next = line.strip_suffix(b"\n").and_then(Line::read),
                None => return Ok(fault),
            }
        }
    }
}

/// The lines of a file, each with its line feed, cut into pieces where one is too long.
struct LineReader<'f, F> {
    input: BufReader<Reading<'f, F>>,
    line: Vec<u8>,
    /// Bytes that were read.
    at: u64,
    /// Lines that were read.
    number: u64,
}

/// A file as a stream of what it holds now.
struct Reading<'f, F> {
    file: &'f F,
    at: u64,
    bytes: u64,
}

impl<'f, F: DiskFile> LineReader<'f, F> {
    fn new(file: &'f F, bytes_max: u64) -> io::Result<Self> {
        let reading = Reading { file, at: 0, bytes: file.len()?.min(bytes_max) };
        Ok(Self { input: BufReader::with_capacity(64 << 10, reading), line: Vec::new(), at: 0, number: 0 })
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.input.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.line)?;
        self.at += read as u64;
        self.number += 1;
        Ok((read > 0).then_some(&self.line[..]))
    }
}

impl<F: DiskFile> Read for Reading<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = (self.bytes - self.at).min(buffer.len() as u64) as usize;
        self.file.read_at(&mut buffer[..bytes], self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}
