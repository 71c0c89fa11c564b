// SPDX-License-Identifier: GPL-2.0
//! Kernel configurations: tinyconfig with fragments on top, and a check that nothing asked for was dropped.

use anyhow::Result;
use anyhow::bail;
use clap::ValueEnum;
use std::collections::BTreeMap;

/// The kernels that are built, tested and measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// What a release looks like, less all that the guest does not need.
    Lean,
    /// The same with KASAN, lockdep, kmemleak and the like.
    Debug,
    /// The lean one with what CRIU needs, for the benchmark.
    #[value(skip)]
    Bench,
    /// The same without `CONFIG_CHECKPOINT`.
    #[value(skip)]
    BenchOff,
}

impl Flavour {
    /// What it is called in messages and paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Debug => "debug",
            Self::Bench => "bench",
            Self::BenchOff => "bench-off",
        }
    }

    /// Its fragments; a later one overrides an earlier one.
    pub fn fragments(self) -> &'static [&'static str] {
        const LEAN: &str = include_str!("../config/lean.config");
        const DEBUG: &str = include_str!("../config/debug.config");
        const BENCH: &str = include_str!("../config/bench.config");
        const IDLE: &str = include_str!("../config/idle.config");
        match self {
            Self::Lean => &[LEAN],
            Self::Debug => &[LEAN, DEBUG],
            Self::Bench => &[LEAN, BENCH],
            Self::BenchOff => &[LEAN, BENCH, IDLE],
        }
    }
}

/// Options by symbol; a missing symbol and the value `n` are the same.
type Options<'a> = BTreeMap<&'a str, &'a str>;

fn parse(text: &str) -> Options<'_> {
    text.lines()
        .filter_map(|line| match line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set")) {
            Some(symbol) => Some((symbol, "n")),
            None if line.starts_with("CONFIG_") => line.split_once('='),
            None => None,
        })
        .collect()
}

fn asked<'a>(fragments: &[&'a str]) -> Options<'a> {
    fragments.iter().flat_map(|fragment| parse(fragment)).collect()
}

/// `base` with the options of the fragments in place of its own.
///
/// Those of the fragments come last: in a choice, the last member that is set wins.
pub fn merge(base: &str, fragments: &[&str]) -> String {
    let asked = asked(fragments);
    let mut options = parse(base);
    options.retain(|symbol, _| !asked.contains_key(symbol));
    let line = |(symbol, value): (&str, &str)| match value {
        "n" => format!("# {symbol} is not set\n"),
        value => format!("{symbol}={value}\n"),
    };
    options.into_iter().chain(asked).map(line).collect()
}

/// Fails unless `built` has every option that the fragments ask for; names those that it lacks.
pub fn check(built: &str, fragments: &[&str]) -> Result<()> {
    let built = parse(built);
    let differs = |(symbol, value): &(&str, &str)| built.get(symbol).unwrap_or(&"n") != value;
    let lost: Vec<_> =
        asked(fragments).into_iter().filter(differs).map(|(symbol, value)| format!("{symbol}={value}")).collect();
    if !lost.is_empty() {
        bail!("the kernel configuration dropped what was asked for: {}", lost.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_fragments_override() {
        let merged = merge(
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x=y\"\n",
            &["CONFIG_B=y\nCONFIG_A=n\n", "CONFIG_A=y\n"],
        );
        assert_eq!(merged, "CONFIG_C=\"x=y\"\nCONFIG_A=y\nCONFIG_B=y\n");
    }

    #[test]
    fn what_is_lost_is_named() {
        let built = "CONFIG_A=y\n# CONFIG_B is not set\n";
        check(built, &["CONFIG_A=y\nCONFIG_B=n\nCONFIG_D=n\n"]).unwrap();
        let error = check(built, &["CONFIG_B=y\nCONFIG_C=y\n"]).unwrap_err().to_string();
        assert!(error.ends_with(": CONFIG_B=y CONFIG_C=y"), "{error}");
    }
}
