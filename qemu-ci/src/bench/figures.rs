// SPDX-License-Identifier: GPL-2.0
//! What the guest reports: figures by their key, `METRIC/WHAT/SIZE/WHO`.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    /// What each run gave.
    Samples(Vec<f64>),
    /// What it was refused with: it is not supported.
    Refused(String),
    /// What went wrong.
    Error(String),
}

#[derive(Deserialize)]
struct Line {
    key: String,
    #[serde(flatten)]
    figure: Figure,
}

/// All figures of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, Figure>);

impl Figures {
    /// Adds what one line of the guest says.
    pub fn add(&mut self, line: &str) -> Result<()> {
        let Line { key, figure } = serde_json::from_str(line).with_context(|| format!("the guest says: {line}"))?;
        self.insert(key, figure)
    }

    /// Adds a figure that the host measured.
    pub fn put(&mut self, key: &str, value: f64) -> Result<()> {
        self.insert(key.to_owned(), Figure::Samples(vec![value]))
    }

    fn insert(&mut self, key: String, figure: Figure) -> Result<()> {
        if let Figure::Samples(samples) = &figure {
            // A broken measurement is no zero.
            if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite() || *sample <= 0.0) {
                bail!("{key}: {samples:?} is no measurement");
            }
        }
        if self.0.insert(key.clone(), figure).is_some() {
            bail!("{key}: measured twice");
        }
        Ok(())
    }

    /// The median of a figure, or why there is none.
    pub fn get(&self, what: &str, size: usize, who: &str) -> Result<f64, String> {
        match self.0.get(&format!("{what}/{size}/{who}")) {
            Some(Figure::Samples(samples)) => Ok(median(samples)),
            Some(Figure::Refused(why)) => Err(format!("refused: {why}")),
            Some(Figure::Error(why)) => Err(why.clone()),
            None => Err("not measured".into()),
        }
    }

    /// The sizes at which `what` was measured, ascending.
    pub fn sizes(&self, what: &str) -> Vec<usize> {
        let size = |key: &String| key.strip_prefix(what)?.strip_prefix('/')?.split('/').next()?.parse().ok();
        let mut sizes: Vec<_> = self.0.keys().filter_map(size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// What went wrong, with its key.
    pub fn errors(&self) -> Vec<String> {
        let error = |(key, figure): (&String, &Figure)| match figure {
            Figure::Error(why) => Some(format!("{key}: {why}")),
            _ => None,
        };
        self.0.iter().filter_map(error).collect()
    }
}

/// The middle one; of an even number of samples the mean of the two in the middle.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        let mut figures = Figures::default();
        figures.add(r#"{"key":"M2/dump/64/ours","samples":[3.0,1.0,2.0]}"#).unwrap();
        figures.add(r#"{"key":"M2/dump/4/ours","samples":[1.0,2.0]}"#).unwrap();
        figures.add(r#"{"key":"M2/dump/64/criu","refused":"x: not supported"}"#).unwrap();
        figures.add(r#"{"key":"M2/dump/64/tools","error":"no ckpt"}"#).unwrap();
        assert_eq!(figures.get("M2/dump", 64, "ours"), Ok(2.0));
        assert_eq!(figures.get("M2/dump", 4, "ours"), Ok(1.5));
        assert_eq!(figures.get("M2/dump", 64, "criu"), Err("refused: x: not supported".into()));
        assert_eq!(figures.get("M2/dump", 4, "criu"), Err("not measured".into()));
        assert_eq!(figures.sizes("M2/dump"), [4, 64]);
        assert_eq!(figures.errors(), ["M2/dump/64/tools: no ckpt"]);
    }

    #[test]
    fn broken_measurements_are_errors() {
        for line in [r#"{"key":"a","samples":[]}"#, r#"{"key":"a","samples":[1.0,0.0]}"#, r#"{"key":"a"}"#, "noise"] {
            assert!(Figures::default().add(line).is_err(), "{line}");
        }
        let mut figures = Figures::default();
        figures.add(r#"{"key":"a","samples":[1.0]}"#).unwrap();
        assert!(figures.add(r#"{"key":"a","samples":[1.0]}"#).is_err());
    }
}
