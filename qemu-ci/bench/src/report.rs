// SPDX-License-Identifier: GPL-2.0
//! What the host gets: one line for each figure.

use anyhow::Result;
use serde_json::json;
use std::fmt;
use std::io::Write as _;

/// Why there is no figure.
#[derive(Clone, Debug)]
pub enum Why {
    /// It is not supported.
    Refused(String),
    /// Something went wrong.
    Failed(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(why) | Self::Failed(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Why {}

impl From<anyhow::Error> for Why {
    fn from(error: anyhow::Error) -> Self {
        error.downcast().unwrap_or_else(|error| Self::Failed(format!("{error:#}")))
    }
}

/// Reports a figure under `key`: its samples, or why there are none.
///
/// # Errors
///
/// If nobody can be told.
pub fn figure(key: &str, measured: Result<Vec<f64>, impl Into<Why>>) -> Result<()> {
    let line = match measured.map_err(Into::into) {
        Ok(samples) => json!({ "key": key, "samples": samples }),
        Err(Why::Refused(why)) => json!({ "key": key, "refused": why }),
        Err(Why::Failed(why)) => json!({ "key": key, "error": why }),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "bench: {line}")?;
    Ok(out.flush()?)
}
