//! Splits a file into its documents and knows the bytes of each.
//!
//! No YAML parser is needed for that, so that a document with a syntax error hides none of the
//! documents beside it, and [`crate::store::Editor`] can replace one and leave the others as they are.

use serde::de::IgnoredAny;
use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DocumentSpan {
    /// Bytes of the document with the separator before it.
    pub(super) span: Range<usize>,
    /// Bytes of the document without the separator.
    pub(super) body: Range<usize>,
    /// Line of the file where the body begins, from 1.
    pub(super) line: usize,
}

/// The documents of a file in order, without those that are empty or have only comments.
///
/// A line that begins with `---` or `...` separates documents wherever it is: YAML allows it in no
/// scalar. JSON texts may follow each other without a separator.
pub(super) fn documents(bytes: &[u8]) -> Vec<DocumentSpan> {
    let mut parts = Vec::new();
    let mark = if bytes.starts_with(b"\xef\xbb\xbf") {
        3
    } else {
        0
    };
    let mut part = DocumentSpan {
        span: 0..0,
        body: mark..0,
        line: 1,
    };
    let (mut at, mut line) = (mark, 1);
    for text in bytes
        .get(mark..)
        .unwrap_or_default()
        .split_inclusive(|c| *c == b'\n')
    {
        if is_separator(text) {
            part.span.end = at;
            part.body.end = at;
            parts.push(part);
            // What follows on the separator's line belongs to the document.
            part = DocumentSpan {
                span: at..at,
                body: at + 3..at,
                line,
            };
        }
        at += text.len();
        line += 1;
    }
    part.span.end = at;
    part.body.end = at;
    parts.push(part);
    parts.retain(|part| !is_blank(bytes.get(part.body.clone()).unwrap_or_default()));
    parts
        .into_iter()
        .flat_map(|part| json_texts(bytes, part))
        .collect()
}

pub(super) fn line_ends(text: &[u8]) -> usize {
    text.split(|c| *c == b'\n').count() - 1
}

fn is_separator(line: &[u8]) -> bool {
    let follows = || line.get(3).is_none_or(u8::is_ascii_whitespace);
    (line.starts_with(b"---") || line.starts_with(b"...")) && follows()
}

fn is_blank(text: &[u8]) -> bool {
    text.split(|c| *c == b'\n').all(|line| {
        let text = line.trim_ascii();
        text.is_empty() || text.starts_with(b"#") || line.starts_with(b"%")
    })
}

/// Splits a part of a file that is one JSON text after the other; leaves any other part whole.
fn json_texts(bytes: &[u8], part: DocumentSpan) -> Vec<DocumentSpan> {
    let body = bytes.get(part.body.clone()).unwrap_or_default();
    if body.trim_ascii_start().first() != Some(&b'{') {
        return vec![part];
    }
    let mut texts = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    let mut ends = Vec::new();
    let mut whole = true;
    while let Some(text) = texts.next() {
        match text {
            Ok(_) => ends.push(texts.byte_offset()),
            // YAML's flow style, or an error in the last text.
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    if ends.is_empty() || (whole && ends.len() == 1) {
        return vec![part];
    }
    if let (false, Some(last)) = (whole, ends.last()) {
        // JSON has no comments: one after the text makes this a document of YAML.
        if body.get(*last..).is_some_and(is_blank) {
            return vec![part];
        }
    }
    if whole {
        ends.pop();
    }
    ends.push(body.len());
    let mut texts = Vec::with_capacity(ends.len());
    let (mut from, mut line) = (0, part.line);
    for end in ends {
        let span_from = if from == 0 {
            part.span.start
        } else {
            part.body.start + from
        };
        let to = part.body.start + end;
        texts.push(DocumentSpan {
            span: span_from..to,
            body: part.body.start + from..to,
            line,
        });
        line += line_ends(body.get(from..end).unwrap_or_default());
        from = end;
    }
    texts.retain(|part| !is_blank(bytes.get(part.body.clone()).unwrap_or_default()));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(text: &str) -> Vec<(usize, &str)> {
        documents(text.as_bytes())
            .into_iter()
            .map(|p| (p.line, &text[p.body]))
            .collect()
    }

    #[test]
    fn separators_and_lines() {
        let text = "# head\n---\na: 1\n--- # two\nb: 2\n...\n---\n\n--- {c: 3}\n";
        let found = bodies(text);
        assert_eq!(found[0], (2, "\na: 1\n"));
        assert_eq!(found[1], (4, " # two\nb: 2\n"));
        assert_eq!(found[2], (9, " {c: 3}\n"));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_separator_is_at_the_beginning_of_a_line() {
        let text = "key: |\n  ---\n  -----BEGIN X-----\n---x: 1\n";
        assert_eq!(bodies(text), [(1, text)]);
    }

    #[test]
    fn carriage_returns_directives_and_byte_order_mark() {
        let text = "\u{feff}%YAML 1.2\r\n---\r\na: 1\r\n---\r\nb: 2\r\n";
        let found = bodies(text);
        assert_eq!(found, [(2, "\r\na: 1\r\n"), (4, "\r\nb: 2\r\n")]);
    }

    #[test]
    fn json_texts_may_follow_each_other() {
        let text = "{\"a\": 1}\n{\"b\":\n2}\n\n{\"c\": [\n";
        let found = bodies(text);
        assert_eq!(found[0], (1, "{\"a\": 1}"));
        assert_eq!(found[1], (1, "\n{\"b\":\n2}"));
        assert_eq!(found[2], (3, "\n\n{\"c\": [\n"));
        assert_eq!(found.len(), 3);
        assert_eq!(bodies("{\"a\": 1}\n\n").len(), 1);
        assert_eq!(bodies("{\"a\": 1} # why\n").len(), 1);
        assert_eq!(bodies("{a: 1}\n").len(), 1);
    }

    #[test]
    fn spans_cover_the_file() {
        for text in [
            "a: 1\n---\nb: 2\n---\nc: 3",
            "{\"a\":1} {\"b\":2}\n---\nc: 3\n",
            "\u{feff}a: 1",
        ] {
            let parts = documents(text.as_bytes());
            let mut at = 0;
            for part in &parts {
                assert_eq!(part.span.start, at, "{text:?}");
                at = part.span.end;
            }
            assert_eq!(at, text.len(), "{text:?}");
        }
    }

    #[test]
    fn empty_documents_are_left_out() {
        for text in ["", "\n\n", "---\n", "# only\n---\n# comments\n", "...\n"] {
            assert!(documents(text.as_bytes()).is_empty(), "{text:?}");
        }
    }
}
