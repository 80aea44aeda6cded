//! What every benchmark can be told.

use anyhow::{Context, Result, bail};

/// The command line of a benchmark.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Fewer and shorter samples: to see that all works, not for figures.
    pub quick: bool,
    rounds: Option<usize>,
}

impl Options {
    /// Reads the words behind the name of the benchmark.
    ///
    /// # Errors
    /// With what was wrong and what is accepted.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => options.quick = true,
                "--rounds" => {
                    let text = words.next().context("--rounds N")?;
                    let rounds = text.parse().ok().filter(|rounds| (1..=1000).contains(rounds));
                    options.rounds = Some(rounds.with_context(|| format!("--rounds {text}: not 1 to 1000"))?);
                }
                other => bail!("`{other}` is none of --quick, --rounds N"),
            }
        }
        Ok(options)
    }

    /// How often everything is measured: as asked for, else `full` or `quick`.
    #[must_use]
    pub fn rounds(&self, full: usize, quick: usize) -> usize {
        self.rounds.unwrap_or(self.pick(full, quick))
    }

    /// `quick` in a quick run, else `full`.
    #[must_use]
    pub const fn pick<T: Copy>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn rounds_are_bounded() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        assert_eq!(parse("--quick").unwrap().rounds(9, 2), 2);
        assert_eq!(parse("--quick --rounds 5").unwrap().rounds(9, 2), 5);
        for wrong in ["--rounds", "--rounds 0", "--rounds x", "--fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
