// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where the image goes.

use std::{
    ffi::OsString,
    fs::{
        self,
        File,
        OpenOptions, //
    },
    io::{
        self,
        ErrorKind, //
    },
    os::{
        fd::{
            AsFd,
            AsRawFd,
            BorrowedFd, //
        },
        unix::fs::OpenOptionsExt, //
    },
    path::{
        Path,
        PathBuf, //
    },
    process, //
};

use anyhow::Context;
use checkpoint::{
    compress::Compressor,
    Error, //
};
use rustix::{
    fs::{
        fstat,
        fstatfs,
        fsync,
        linkat,
        openat,
        AtFlags,
        FileType,
        FsWord,
        Mode,
        OFlags,
        CWD, //
    },
    io::Errno,
    stdio, //
};

/// The kernel's number of tmpfs, which the files of memfd_create(2) are in, too.
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// Where the image goes.
pub enum Output {
    /// To whatever standard output is.
    Stdout,
    /// To a file that shows when it is complete.
    File(NewFile),
}

impl Output {
    /// Opens the file, or takes standard output.
    pub fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        match path {
            None => Ok(Self::Stdout),
            Some(path) => NewFile::new(path)
                .map(Self::File)
                .with_context(|| format!("cannot create {}", path.display())),
        }
    }

    /// Returns the descriptor to write to.
    pub fn stream(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdout => stdio::stdout(),
            Self::File(new) => new.file.as_fd(),
        }
    }

    /// Does `work`, which writes the image to the descriptor that it gets, and compresses it on the
    /// way if `compress` says so.
    pub fn write<T>(
        &self,
        compress: bool,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, Error>,
    ) -> anyhow::Result<T> {
        if !compress {
            return Ok(work(self.stream())?);
        }
        let to = self.stream().try_clone_to_owned();
        let compressor = to
            .and_then(Compressor::start)
            .context("cannot compress the image")?;
        let result = work(compressor.stream());
        // If that failed it is the reason why the other did.
        compressor.finish().context("cannot write the image")?;
        Ok(result?)
    }

    /// Waits until the image is on the disk, if that is where it goes, and shows it.
    pub fn publish(self) -> anyhow::Result<()> {
        let stream = self.stream();
        let mode = fstat(stream).context("cannot look at the image")?.st_mode;
        if FileType::from_raw_mode(mode) == FileType::RegularFile {
            sync(stream).context("cannot bring the image to the disk")?;
        }
        match self {
            Self::Stdout => Ok(()),
            Self::File(mut new) => new.publish().with_context(|| new.unnamed()),
        }
    }

    /// Whether the image goes to a file in tmpfs, such as a memfd: its pages are all there is of it.
    pub fn is_in_memory(&self) -> bool {
        fstatfs(self.stream()).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
    }

    /// Gives a new file the name that it has until it is published.
    pub fn name(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(new) => new.name().with_context(|| new.unnamed()),
        }
    }

    /// Shows an image whose tree is gone: where that fails it stays under the name that it has.
    pub fn publish_or_keep(self) -> anyhow::Result<()> {
        let Self::File(mut new) = self else {
            return Ok(());
        };
        let result = new.publish();
        let kept = new.temporary.take();
        result.with_context(|| match kept {
            Some(kept) => format!("{}; it is {}", new.unnamed(), kept.display()),
            None => new.unnamed(),
        })
    }
}

/// Waits until a file or folder is on the disk, if it is on a file system that knows of disks.
fn sync(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    match fsync(fd) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// A file that is complete or not there.
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// Its name so far; without one it vanishes by itself.
    temporary: Option<PathBuf>,
}

impl NewFile {
    fn new(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if path.file_name().is_none() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let (file, temporary) = match openat(CWD, folder(path), flags, mode) {
            Ok(file) => (file.into(), None),
            // Not every file system can have a file without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                let temporary = temporary(path);
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&temporary)?;
                (file, Some(temporary))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            temporary,
        })
    }

    /// Makes it a file with a name, which will not be the last.
    fn name(&mut self) -> io::Result<()> {
        if self.temporary.is_none() {
            let temporary = temporary(&self.path);
            let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, link, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)
                // There may be no /proc.
                .or_else(|_| linkat(&self.file, "", CWD, &temporary, AtFlags::EMPTY_PATH))?;
            self.temporary = Some(temporary);
        }
        Ok(())
    }

    fn publish(&mut self) -> io::Result<()> {
        self.name()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path)?;
            self.temporary = None;
        }
        Ok(sync(File::open(folder(&self.path))?.as_fd())?)
    }

    fn unnamed(&self) -> String {
        format!("cannot name the image {}", self.path.display())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The image is not complete, and why was said already.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", process::id()));
    folder(path).join(name)
}
