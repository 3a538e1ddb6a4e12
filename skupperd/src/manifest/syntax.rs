//! Errors of the YAML parser in plain words.

use granit_parser::{ErrorKind, ScanError};

pub(super) const TOO_DEEP: &str = "document is nested too deeply";
/// How the reason of a syntax error begins.
const PREFIX: &str = "not valid YAML: ";

/// Where to look for the error, in bytes of the text.
pub(super) fn offset(text: &str, error: &ScanError) -> Option<usize> {
    let offset = error.marker().byte_offset()?;
    if is_about_tab(error.kind()) {
        return Some(offset + to_indenting_tab(text.get(offset..).unwrap_or_default()));
    }
    Some(offset)
}

/// What is wrong with the syntax, in the parser's words where these name it.
pub(super) fn reason(kind: &ErrorKind) -> String {
    let reason = match kind {
        ErrorKind::RecursionLimitExceeded => return TOO_DEEP.to_owned(),
        kind if is_about_tab(kind) => "a tab cannot indent: use spaces",
        ErrorKind::UnknownAnchor => "no anchor has the name of this alias",
        ErrorKind::UnclosedQuotedScalar => "the quoted string is not closed",
        ErrorKind::UnclosedFlowCollection { open: '[' } => "'[' is not closed",
        ErrorKind::UnclosedFlowCollection { .. } => "'{' is not closed",
        // For a surplus comma the parser reports the end of the input.
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping => "a value is missing between brackets",
        ErrorKind::ExpectedFlowMappingSeparator => "expected ',' or '}'",
        ErrorKind::ExpectedFlowSequenceSeparator => "expected ',' or ']'",
        ErrorKind::MappingValueNotAllowed => {
            "':' is not allowed here: check the indentation, or quote the value"
        }
        ErrorKind::InvalidColonPlacement => {
            "':' is not allowed here: a bracket before it may not be closed"
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedDocumentStart => {
            "expected a key: check the indentation"
        }
        ErrorKind::CommentInterceptedScalar => "a comment interrupts a string of several lines",
        ErrorKind::CommentNotSeparated => "a comment needs a space before its '#'",
        ErrorKind::UnexpectedCharacter { character } => {
            return format!("{PREFIX}{character:?} cannot begin a value: quote it");
        }
        _ => return format!("{PREFIX}{kind}"),
    };
    format!("{PREFIX}{reason}")
}

fn is_about_tab(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    )
}

/// Offset of the first line that a tab indents; the parser marks where the scalar before it begins.
fn to_indenting_tab(text: &str) -> usize {
    let mut lines = text.match_indices('\n').map(|(at, _)| at + 1);
    let is_indented = |start: &usize| {
        let line = text.get(*start..).unwrap_or_default();
        line.trim_start_matches(' ').starts_with('\t')
    };
    if is_indented(&0) {
        return 0;
    }
    lines.find(is_indented).unwrap_or_default()
}
