//! Files written with direct I/O through io_uring: the journal.

pub use glommio::io::DmaBuffer;
use glommio::io::{DmaFile, OpenOptions};
use std::io;
use std::path::Path;
use std::rc::Rc;

/// An existing file opened for direct writes.
pub struct DirectFile {
    file: DmaFile,
}

impl DirectFile {
    /// Opens `path`, which must exist, be preallocated, and is only ever overwritten.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).dma_open(path).await.map_err(io::Error::from)?;
        Ok(Self { file })
    }

    /// A zeroed buffer that can be written to this file; `len` is a multiple of 4096.
    pub fn buffer(&self, len: usize) -> DmaBuffer {
        self.file.alloc_dma_buffer(len)
    }

    /// Writes the whole buffer at `position`, a multiple of 4096.
    pub async fn write(&self, buffer: Rc<DmaBuffer>, position: u64) -> io::Result<()> {
        let len = buffer.len();
        match self.file.write_rc_at(buffer, position).await.map_err(io::Error::from)? {
            written if written == len => Ok(()),
            written => Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("only {written} of {len} bytes were written"),
            )),
        }
    }

    /// Makes everything written so far durable. After an error nothing is known about the file: never retry.
    pub async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(io::Error::from)
    }

    /// Closes the file. A file that is dropped instead stays open until its executor has time for it.
    pub async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(io::Error::from)
    }
}
