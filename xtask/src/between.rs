//! Parts of a document that are written by a command: between two lines of their own.

use anyhow::{Context as _, Result};

/// The document with `text` between the lines `begin` and `end`, which end with a line break.
///
/// # Errors
/// When `file` lacks one of the lines.
pub(crate) fn put(file: &str, document: &str, (begin, end): (&str, &str), text: &str) -> Result<String> {
    let missing = || format!("{file} lacks the lines `{}` and `{}`", begin.trim_end(), end.trim_end());
    let (head, rest) = document.split_once(begin).with_context(missing)?;
    let (_, tail) = rest.split_once(end).with_context(missing)?;
    Ok(format!("{head}{begin}{text}{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::put;

    #[test]
    fn only_what_is_between_the_lines_changes() {
        let lines = ("<!-- a -->\n", "<!-- z -->\n");
        let document = "before\n<!-- a -->\nold\n<!-- z -->\nbehind\n";
        let fresh = put("X.md", document, lines, "new\n").expect("both lines are there");
        assert_eq!(fresh, "before\n<!-- a -->\nnew\n<!-- z -->\nbehind\n");
        let error = put("X.md", "nothing", lines, "").expect_err("no line is there").to_string();
        assert_eq!(error, "X.md lacks the lines `<!-- a -->` and `<!-- z -->`");
    }
}
