//! A plain text table: columns as wide as their widest cell.

use std::fmt::Write;

/// Renders rows below a header. The last column is not padded, and control characters in cells are shown as
/// `?`: names of processes and units are somebody else's text.
pub(crate) fn render<const COLUMNS: usize>(header: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let mut widths = header.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = line(&header.map(str::to_owned), &widths);
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn line<const COLUMNS: usize>(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut text = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        let shown: String = cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        // Writing to a String cannot fail.
        let _ = write!(text, "{shown:<width$}  ");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_escape_sequences_do_not_get_out() {
        let rows = [["é".to_owned(), "x\u{1b}[31m".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(render(["A", "B"], &rows), "A     B\né     x?[31m\nlong\n");
    }
}
