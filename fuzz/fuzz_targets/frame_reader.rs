//! Bytes of a journal file are refused or read, never misread: what is accepted is written back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nistru::event::record;
use nistru::journal::command::{Body, Command, commands};
use nistru::journal::files::FileHeader;
use nistru::journal::frame::{Frame, FrameHeader, Gap, HEADER_BYTES};

/// Where the checksum of the header stands in it; the last field.
const HEADER_CRC_AT: usize = HEADER_BYTES - 4;

fuzz_target!(|data: &[u8]| {
    let _ = FileHeader::read(data);
    let _ = Gap::read(data);
    read_frame(data);
    read_frame(&sealed(data));
    read_body(data);
    read_block(data);
});

/// The same bytes with a header checksum that holds, so that the fields behind it are reached.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() >= HEADER_BYTES {
        let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

fn read_frame(bytes: &[u8]) {
    let Ok(header) = FrameHeader::read(bytes) else { return };
    let mut written = [0; HEADER_BYTES];
    header.write(&mut written);
    assert_eq!(written, bytes[..HEADER_BYTES]);
    if let Ok(frame) = Frame::read_unverified(bytes) {
        read_body(frame.body);
    }
    let _ = Frame::read(bytes);
}

fn read_body(bytes: &[u8]) {
    let Ok(read) = commands(bytes).collect::<Result<Vec<_>, _>>() else { return };
    let mut body = Body::default();
    for command in &read {
        body.push(command);
        if let Command::Events(block) = command {
            read_block(block);
        }
    }
    assert_eq!(body.pieces().collect::<Vec<_>>().concat(), bytes);
}

fn read_block(block: &[u8]) {
    for (start, record) in record::records(block).map_while(Result::ok) {
        assert_eq!(start % record::ALIGN, 0);
        let event = record.event();
        assert!(record.source().len() <= event.len() && record.id().len() <= event.len());
        let _ = record.header();
    }
}
