//! Tests that cannot run here say so.
//!
//! The line `SKIPPED: <test>: <reason>` is what the test runner collects; a skipped test is
//! never silent, since the line is printed past the capture of the test harness.

use std::{env, io::Write, path::PathBuf};

/// Writes the line of a skipped test to the real stderr, which the test harness does not capture.
pub fn report(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// The path of the function that a marker function was declared in: `crate::module::test`.
#[must_use]
pub fn enclosing<T>(_marker: T) -> &'static str {
    let name = std::any::type_name::<T>();
    name.strip_suffix("::marker").unwrap_or(name)
}

/// Where a program is in PATH.
#[must_use]
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Skips the running test with a reason: prints it and returns.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        fn marker() {}
        $crate::skip::report($crate::skip::enclosing(marker), &format!($($reason)*));
        return;
    }};
}

/// Skips the running test unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !::nix::unistd::geteuid().is_root() {
            $crate::skip!("needs root; run `sudo -E cargo xtask test`");
        }
    };
}

/// Skips the running test unless every named program is in PATH.
#[macro_export]
macro_rules! require_tools {
    ($($tool:literal),+ $(,)?) => {
        $(
            if $crate::skip::find_tool($tool).is_none() {
                $crate::skip!("needs the program `{}`", $tool);
            }
        )+
    };
}

#[cfg(test)]
mod tests {
    use super::{enclosing, find_tool};

    #[test]
    fn a_test_knows_its_name() {
        fn marker() {}
        assert!(enclosing(marker).ends_with("skip::tests::a_test_knows_its_name"));
    }

    #[test]
    fn tools_are_looked_up_in_the_path() {
        assert!(find_tool("sh").is_some());
        assert!(find_tool("no-such-program-anywhere").is_none());
    }
}
