// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What can go wrong.

use std::io;

use checkpoint_image::ImageError;
use rustix::io::Errno;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the checkpoint.
    #[error("{}", checkpoint_text(*errno))]
    Checkpoint {
        /// Its error.
        errno: Errno,
        /// Its reasons, by name; one line each.
        problems: Vec<String>,
    },
    /// The kernel refused the restart.
    #[error("{}", restart_text(*errno))]
    Restart {
        /// Its error.
        errno: Errno,
        /// Its reasons, by name; one line each.
        problems: Vec<String>,
    },
    /// The hold is over: its lease ran out.
    #[error("cannot {0}: the hold on the tree has ended, and the tree goes on")]
    Ended(&'static str),
    /// Another system call failed.
    #[error("cannot {what}: {}", text(*errno))]
    System {
        /// What it was for.
        what: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The image is defective.
    #[error("{0}")]
    Image(ImageError),
    /// The image is compressed, and that is defective.
    #[error("the compressed image is damaged: {0}")]
    Compressed(io::Error),
    /// The image could not be read or written.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for Error {
    /// What the system has no number for comes from the decompression.
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(_) => Self::Io(error),
            None => Self::Compressed(error),
        }
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl Error {
    /// Returns the lines in which the kernel gave its reasons.
    pub fn problems(&self) -> &[String] {
        match self {
            Self::Checkpoint { problems, .. } | Self::Restart { problems, .. } => problems,
            _ => &[],
        }
    }

    /// Whether the lines of the kernel say all that there is to say.
    pub fn is_explained(&self) -> bool {
        let refused = matches!(
            self,
            Self::Checkpoint { errno, .. } | Self::Restart { errno, .. }
                if !matches!(*errno, Errno::NOSYS | Errno::INTR | Errno::NOMEM)
        );
        refused && !self.problems().is_empty()
    }

    /// Whether the image is to blame.
    pub fn is_defect(&self) -> bool {
        match self {
            Self::Image(_) | Self::Compressed(_) => true,
            Self::Restart { errno, problems } => {
                matches!(
                    *errno,
                    Errno::BADMSG | Errno::NOEXEC | Errno::ILSEQ | Errno::NODATA
                ) || problems.iter().any(|line| line.starts_with("image: "))
            }
            _ => false,
        }
    }
}

/// Returns the kernel's text for an error, without its number.
fn text(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    match text.rfind(" (os error") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

fn checkpoint_text(errno: Errno) -> String {
    match errno {
        Errno::NOSYS => "this kernel has no checkpoint(2) (CONFIG_CHECKPOINT)".into(),
        Errno::PERM | Errno::ACCESS => {
            "no permission: a checkpoint takes what attaching a debugger to every task takes, and \
             the sysctl kernel.checkpoint_unprivileged"
                .into()
        }
        Errno::SRCH => "the process does not exist any more".into(),
        Errno::BUSY => "another checkpoint holds the process or a part of its tree".into(),
        Errno::TIMEDOUT => "the tree did not stand still in time; --timeout gives it more".into(),
        Errno::OPNOTSUPP => "the tree has something that cannot be saved".into(),
        Errno::PIPE => "whoever reads the image went away".into(),
        Errno::NOSPC | Errno::DQUOT => "there is no space left for the image".into(),
        Errno::FBIG => "the image is larger than a file may be there".into(),
        Errno::NOMEM => {
            "there is not enough memory for the checkpoint; --no-snapshot takes less".into()
        }
        Errno::INTR => "interrupted; the tree goes on".into(),
        Errno::DEADLK => "the tree contains whoever asks for its checkpoint".into(),
        Errno::INVAL | Errno::TOOBIG => {
            "the kernel does not know what this ckpt asks of it; it may be older".into()
        }
        _ => format!("cannot write the image: {}", text(errno)),
    }
}

fn restart_text(errno: Errno) -> String {
    match errno {
        Errno::NOSYS => "this kernel has no restart(2) (CONFIG_CHECKPOINT)".into(),
        Errno::PERM | Errno::ACCESS => {
            "no permission: the same process numbers take CAP_CHECKPOINT_RESTORE; --new-pidns works \
             without"
                .into()
        }
        Errno::EXIST => {
            "a process number of the tree is taken; --new-pidns has all of them free".into()
        }
        Errno::NOENT => "a file of the tree does not exist".into(),
        Errno::OPNOTSUPP => "the image needs something that this machine does not have".into(),
        Errno::BADMSG => "the image is damaged".into(),
        Errno::NODATA => "the image is truncated".into(),
        Errno::NOEXEC => "this is not a checkpoint image".into(),
        Errno::NOMEM => "there is not enough memory for the restart".into(),
        Errno::INTR => "interrupted; nothing of the tree is left".into(),
        Errno::AGAIN => "the limit of processes or memory does not allow the tree".into(),
        Errno::INVAL | Errno::TOOBIG => {
            "the kernel does not know what this rstr asks of it; it may be older".into()
        }
        _ => format!("cannot restart: {}", text(errno)),
    }
}
