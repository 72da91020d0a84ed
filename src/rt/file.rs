//! Files written with direct and synchronous I/O through io_uring: the journal.

pub use glommio::io::DmaBuffer;
use glommio::io::{DmaFile, OpenOptions};
use std::io;
use std::path::Path;
use std::rc::Rc;

/// An existing file opened for direct writes, each of which is durable when it is done (`O_DSYNC`). A sync of its own after the write
/// would come a turn of the executor and a wake-up of a kernel thread later.
pub struct DirectFile {
    file: DmaFile,
}

impl DirectFile {
    /// Opens `path`, which must exist, be preallocated, and is only ever overwritten.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DSYNC)
            .dma_open(path)
            .await
            .map_err(io::Error::from)?;
        Ok(Self { file })
    }

    /// A zeroed buffer that can be written to this file; `len` is a multiple of 4096.
    pub fn buffer(&self, len: usize) -> DmaBuffer {
        self.file.alloc_dma_buffer(len)
    }

    /// Writes the whole buffer at `position`, a multiple of 4096, and makes it durable. After an error nothing is known about the
    /// file: never retry.
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

    /// Closes the file. A file that is dropped instead stays open until its executor has time for it.
    pub async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(io::Error::from)
    }
}
