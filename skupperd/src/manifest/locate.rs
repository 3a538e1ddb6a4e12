//! Where in a document a field stands.

/// Line, from 0, of a field such as `spec.roles[1].name` in a block-style document. Flow style and
/// JSON give the line of the nearest parent that is found.
pub(super) fn line_of(text: &str, field: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut from, mut to) = (0, lines.len());
    let mut found = None;
    for part in field.split('.') {
        let (key, index) = match part.split_once('[') {
            Some((key, rest)) => (key, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some(line) = (from..to).find(|n| key_at(lines[*n], key)) else {
            break;
        };
        found = Some(line);
        let indent = indent(lines[line]);
        from = line + 1;
        // Items of a list may stand at the same depth as their key.
        let deeper = |n: &usize| {
            let text = lines[*n];
            !text.trim().is_empty()
                && (self::indent(text) < indent
                    || (self::indent(text) == indent && !text.trim_start().starts_with("- ")))
        };
        to = (from..to).find(deeper).unwrap_or(to);
        if let Some(index) = index {
            let items: Vec<usize> = item_lines(&lines, from, to);
            let Some(at) = items.get(index) else { break };
            found = Some(*at);
            from = *at;
            to = items.get(index + 1).copied().unwrap_or(to);
        }
    }
    found
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn key_at(line: &str, key: &str) -> bool {
    let text = line.trim_start().trim_start_matches("- ").trim_start();
    let text = text.trim_start_matches(['{', ',']).trim_start();
    [
        format!("{key}:"),
        format!("\"{key}\":"),
        format!("'{key}':"),
    ]
    .iter()
    .any(|start| text.starts_with(start.as_str()))
}

fn item_lines(lines: &[&str], from: usize, to: usize) -> Vec<usize> {
    let items = (from..to).filter(|n| lines[*n].trim_start().starts_with('-'));
    let items: Vec<usize> = items.collect();
    let least = items.iter().map(|n| indent(lines[*n])).min().unwrap_or(0);
    items
        .into_iter()
        .filter(|n| indent(lines[*n]) == least)
        .collect()
}

/// Takes field path and text of a deserializer's message apart.
pub(super) fn split_yaml_error(message: &str) -> (Option<String>, String) {
    // "spec.port: invalid type: string \"x\", expected i64 at line 7 column 9"
    let text = message.split(" at line ").next().unwrap_or(message);
    match text.split_once(": ") {
        Some((path, reason))
            if !path.is_empty()
                && path
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"._-[]".contains(&c)) =>
        {
            (Some(path.to_owned()), reason.to_owned())
        }
        _ => (None, text.to_owned()),
    }
}
