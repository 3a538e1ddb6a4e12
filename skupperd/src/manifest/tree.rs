//! A YAML document as a tree in which every node knows its line.
//!
//! [`parse`] reads the events of the parser once; everything later, from the type of a field to the
//! line of an error, comes from this tree.
//!
//! Anyone may have written a file. So the document (see [`super::MAX_DOCUMENT_SIZE`]), its nesting and
//! what aliases make of it are bounded; keys that are no strings, duplicate keys and tags of applications
//! are refused. Collections are shared between an anchor and its aliases, so that an alias costs no
//! memory until the tree is walked.

use super::{
    field_error::{FieldError, FieldPath},
    node::{YamlField, YamlNode, YamlValue},
    scalar, syntax,
};
use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Tag};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Collections that are inside each other, aliases followed. Code that walks a tree recurses.
const MAX_DEPTH: usize = 128;
/// What aliases may add to a document beside its own size, in characters and nodes.
const ALIAS_ALLOWANCE: usize = 64 * 1024;

/// Why a document is no tree, and which resource it was going to be, as far as that was read.
#[derive(Debug)]
pub(super) struct TreeError {
    pub(super) error: FieldError,
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
}

/// The tree of one document. Lines are those of `text`, from 0.
pub(super) fn parse(text: &str) -> Result<YamlNode, Box<TreeError>> {
    let mut builder = TreeBuilder::new(text);
    builder.read(text).map_err(|error| {
        let (kind, name) = builder.identity();
        Box::new(TreeError { error, kind, name })
    })
}

fn options() -> Options {
    granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        // As the parsers of other tools have it, so that they read the same from a file.
        block_scalar_eof_without_line_feed: true,
        emit_comments: false,
    }
}

struct OpenCollection {
    line: usize,
    anchor: usize,
    /// Characters and nodes in it, aliases followed.
    size: usize,
    /// Collections inside each other in it, itself included.
    height: usize,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<YamlNode>),
    Mapping {
        fields: Vec<YamlField>,
        /// Lines of the keys, to find one that is there twice.
        lines: HashMap<String, usize>,
        /// Key that waits for its value.
        key: Option<(String, usize)>,
    },
}

/// A node that is complete.
#[derive(Clone)]
struct Subtree {
    node: YamlNode,
    /// Text of a scalar, which may become a key.
    scalar: Option<String>,
    size: usize,
    height: usize,
}

struct TreeBuilder {
    /// Offsets of the ends of lines.
    line_ends: Vec<usize>,
    last_line: usize,
    open: Vec<OpenCollection>,
    /// By the parser's number. A node has an entry when it is complete.
    anchors: HashMap<usize, Subtree>,
    /// What aliases may still add.
    alias_budget: usize,
    root: Option<YamlNode>,
}

impl TreeBuilder {
    fn new(text: &str) -> Self {
        Self {
            line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
            last_line: text.lines().count().saturating_sub(1),
            open: Vec::new(),
            anchors: HashMap::new(),
            alias_budget: text.len() + ALIAS_ALLOWANCE,
            root: None,
        }
    }

    fn read(&mut self, text: &str) -> Result<YamlNode, FieldError> {
        for next in Parser::new_from_str_with_options(text, options()) {
            let (event, span) = next.map_err(|error| self.syntax_error(text, &error))?;
            let line = self.line_of(span.start.byte_offset());
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    // The parser gives a scalar that is not there the text `~`.
                    let text = if span.is_empty() { "" } else { &*text };
                    self.add_scalar(text, style, anchor, tag.as_deref(), line)?;
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.open(OpenContent::List(Vec::new()), anchor, tag.as_deref(), line)?;
                }
                Event::MappingStart(_, anchor, tag) => {
                    let content = OpenContent::Mapping {
                        fields: Vec::new(),
                        lines: HashMap::new(),
                        key: None,
                    };
                    self.open(content, anchor, tag.as_deref(), line)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(anchor) => self.add_alias(anchor, line)?,
                Event::DocumentStart(..) if self.root.is_some() => {
                    let reason = "not valid YAML: a second document begins without a separator";
                    return Err(FieldError::at_line(line, reason));
                }
                _ => {}
            }
        }
        let empty = YamlNode {
            line: 0,
            value: YamlValue::Null,
        };
        Ok(self.root.take().unwrap_or(empty))
    }

    fn line_of(&self, offset: Option<usize>) -> usize {
        let offset = offset.unwrap_or_default();
        let line = self.line_ends.partition_point(|end| *end < offset);
        // The end of a text counts as the line after it.
        line.min(self.last_line)
    }

    fn syntax_error(&self, text: &str, error: &ScanError) -> FieldError {
        let line = self.line_of(syntax::offset(text, error));
        FieldError::at_line(line, syntax::reason(error.kind()))
    }

    fn add_scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        line: usize,
    ) -> Result<(), FieldError> {
        let is_key = self.expects_key();
        let value = match tag {
            // A key is a string, whatever it looks like.
            _ if is_key && anchor == 0 => YamlValue::Null,
            Some(tag) => {
                self.refuse_own_tag(Some(tag), line)?;
                let suffix = tag.core_suffix().unwrap_or("str");
                scalar::resolve_as(suffix, text)
                    .ok_or_else(|| self.error(line, format!("value is not of type !!{suffix}")))?
            }
            None if style == ScalarStyle::Plain => scalar::resolve(text),
            None => YamlValue::Text(Zeroizing::new(text.to_owned())),
        };
        let subtree = Subtree {
            node: YamlNode { line, value },
            scalar: (anchor != 0 || is_key).then(|| text.to_owned()),
            size: text.len() + 1,
            height: 0,
        };
        self.add(subtree, anchor)
    }

    fn add_alias(&mut self, anchor: usize, line: usize) -> Result<(), FieldError> {
        let Some(mut subtree) = self.anchors.get(&anchor).cloned() else {
            return Err(self.error(line, "the alias refers to what it is inside of"));
        };
        if self.open.len() + subtree.height > MAX_DEPTH {
            return Err(self.error(line, syntax::TOO_DEEP));
        }
        let left = self.alias_budget.checked_sub(subtree.size);
        self.alias_budget =
            left.ok_or_else(|| self.error(line, "aliases make the document too large"))?;
        subtree.node.line = line;
        self.add(subtree, 0)
    }

    fn open(
        &mut self,
        content: OpenContent,
        anchor: usize,
        tag: Option<&Tag>,
        line: usize,
    ) -> Result<(), FieldError> {
        if self.expects_key() {
            let found = match content {
                OpenContent::List(_) => "a list",
                OpenContent::Mapping { .. } => "a mapping",
            };
            let reason = format!("expected the name of a field, found {found}");
            return Err(self.error(line, reason));
        }
        self.refuse_own_tag(tag, line)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(line, syntax::TOO_DEEP));
        }
        self.open.push(OpenCollection {
            line,
            anchor,
            size: 1,
            height: 1,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), FieldError> {
        let Some(closed) = self.open.pop() else {
            return Ok(());
        };
        let value = match closed.content {
            OpenContent::List(items) => YamlValue::List(Arc::new(items)),
            OpenContent::Mapping { fields, .. } => YamlValue::Mapping(Arc::new(fields)),
        };
        let line = closed.line;
        let subtree = Subtree {
            node: YamlNode { line, value },
            scalar: None,
            size: closed.size,
            height: closed.height,
        };
        self.add(subtree, closed.anchor)
    }

    /// Puts a complete node where it belongs: below the innermost collection that is open.
    fn add(&mut self, subtree: Subtree, anchor: usize) -> Result<(), FieldError> {
        if anchor != 0 {
            self.anchors.insert(anchor, subtree.clone());
        }
        let Subtree {
            node,
            scalar,
            size,
            height,
        } = subtree;
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.size += size;
        parent.height = parent.height.max(height + 1);
        match &mut parent.content {
            OpenContent::List(items) => items.push(node),
            OpenContent::Mapping { fields, lines, key } => match (key.take(), scalar) {
                (Some((key, line)), _) => fields.push(YamlField { key, line, node }),
                (None, Some(text)) => match lines.entry(text.clone()) {
                    Entry::Vacant(new) => {
                        new.insert(node.line);
                        *key = Some((text, node.line));
                    }
                    Entry::Occupied(first) => {
                        let first = *first.get();
                        *key = Some((text, node.line));
                        return Err(self.error(node.line, "").duplicate_of(first));
                    }
                },
                (None, None) => {
                    let reason = "expected the name of a field, found an alias of a collection";
                    return Err(self.error(node.line, reason));
                }
            },
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        let innermost = self.open.last().map(|open| &open.content);
        matches!(innermost, Some(OpenContent::Mapping { key: None, .. }))
    }

    /// Tags of YAML's own types are taken, and foreign ones mean nothing here, but one that a document
    /// invents asks for something that it would not get.
    fn refuse_own_tag(&self, tag: Option<&Tag>, line: usize) -> Result<(), FieldError> {
        match tag {
            Some(tag) if tag.core_suffix().is_none() && tag.handle().starts_with('!') => {
                Err(self.error(line, "tags are not allowed"))
            }
            _ => Ok(()),
        }
    }

    /// An error of the node that is read.
    fn error(&self, line: usize, reason: impl Into<String>) -> FieldError {
        let mut path = String::new();
        for open in &self.open {
            match &open.content {
                OpenContent::List(items) => FieldPath::push_index(&mut path, items.len()),
                OpenContent::Mapping { key, .. } => {
                    if let Some((key, _)) = key {
                        FieldPath::push_key(&mut path, key);
                    }
                }
            }
        }
        FieldError::at_field(path, line, reason)
    }

    /// Kind and name of a document that is not complete.
    fn identity(&self) -> (Option<String>, Option<String>) {
        let text = |open: Option<&OpenCollection>, key: &str| match &open?.content {
            OpenContent::Mapping { fields, .. } => {
                let field = fields.iter().find(|field| field.key == key)?;
                Some(field.node.clone())
            }
            OpenContent::List(_) => None,
        };
        let owned = |node: &YamlNode| node.as_text().map(str::to_owned);
        let root = self.open.first();
        let in_metadata = matches!(
            root.map(|open| &open.content),
            Some(OpenContent::Mapping { key: Some((key, _)), .. }) if key == "metadata"
        );
        let kind = text(root, "kind").as_ref().and_then(owned);
        let name = match text(root, "metadata") {
            Some(metadata) => metadata.get("name").and_then(owned),
            None if in_metadata => text(self.open.get(1), "name").as_ref().and_then(owned),
            None => None,
        };
        let known = |text: &String| !text.is_empty();
        (kind.filter(known), name.filter(known))
    }
}

#[cfg(test)]
mod tests;
