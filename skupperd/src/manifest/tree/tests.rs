use super::*;
use serde_json::Value;

fn json(text: &str) -> Value {
    parse(text).expect("YAML").to_json()
}

/// Line, from 1, and text of what is wrong.
fn error(text: &str) -> (usize, String) {
    let error = parse(text).expect_err("an error").error;
    (error.line() + 1, error.to_string())
}

#[test]
fn line_ends_of_other_systems_and_json_give_the_same_tree() {
    let expected = serde_json::json!({"a": {"b": [1, "x"]}});
    for text in [
        "a:\n  b:\n  - 1\n  - x\n",
        "a:\r\n  b:\r\n  - 1\r\n  - x\r\n",
        "{\"a\": {\"b\": [1, \"x\"]}}",
        "{\n\t\"a\":\n\t{\"b\":\n\t\t[1, \"\\u0078\"]}}",
        "%YAML 1.2\n---\na: {b: [1, x]}\n",
    ] {
        assert_eq!(json(text), expected, "{text:?}");
    }
    assert_eq!(
        json("a: \"\\ud83d\\ude00\\/\""),
        serde_json::json!({"a": "\u{1f600}/"})
    );
}

#[test]
fn block_scalars_end_as_written() {
    for (text, value) in [
        ("|\n  x\n", "x\n"),
        ("|\n  x", "x"),
        ("|-\n  x\n", "x"),
        (">\n  x\n  y\n", "x y\n"),
    ] {
        assert_eq!(json(&format!("a: {text}"))["a"], value, "{text:?}");
    }
}

#[test]
fn keys_are_strings_and_each_is_there_once() {
    assert_eq!(
        json("1: a\ntrue: b\n? ~\n: c\n"),
        serde_json::json!({"1": "a", "true": "b", "~": "c"})
    );
    let text = "a: 1\nb:\n  c: 1\n  'c': 2\n";
    assert_eq!(
        error(text),
        (4, "b.c: duplicate field, first set on line 3".to_owned())
    );
    assert_eq!(error("a:\n  ? [x]\n  : y\n").0, 2);
    assert_eq!(json("<<: {a: 1}\n"), serde_json::json!({"<<": {"a": 1}}));
}

#[test]
fn aliases_repeat_a_value_and_have_a_budget() {
    assert_eq!(
        json("a: &n [x]\nb: *n\n&k c: *k\n"),
        serde_json::json!({"a": ["x"], "b": ["x"], "c": "c"})
    );
    assert_eq!(
        json("a: &n x\n*n : y\n"),
        serde_json::json!({"a": "x", "x": "y"})
    );
    assert_eq!(
        error("a: &n\n  b: *n\n"),
        (
            2,
            "a.b: the alias refers to what it is inside of".to_owned()
        )
    );
    assert_eq!(error("a: *n\n").0, 1);
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..40 {
        let list = vec![format!("*a{}", n - 1); 9].join(",");
        bomb.push_str(&format!("a{n}: &a{n} [{list}]\n"));
    }
    let (_, message) = error(&bomb);
    assert!(
        message.ends_with("aliases make the document too large"),
        "{message}"
    );
    // Each alias is small, and nests what it repeats one deeper.
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for n in 1..1000 {
        chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    assert!(error(&chain).1.ends_with(syntax::TOO_DEEP));
}

#[test]
fn nesting_is_bounded_in_either_style() {
    for open in ["[", "{a: ", "- ", "? "] {
        assert!(
            error(&open.repeat(100_000))
                .1
                .contains("document is nested too deeply")
                || open == "? ",
            "{open}"
        );
    }
    let depth = MAX_DEPTH - 1;
    json(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
}

#[test]
fn tags_of_yaml_are_taken_and_own_ones_refused() {
    let text = "a: !!str 1\nb: !!int '2'\nc: !!map {}\nd: !!binary aGk=\n";
    assert_eq!(
        json(text),
        serde_json::json!({"a": "1", "b": 2, "c": {}, "d": "aGk="})
    );
    assert_eq!(
        error("a:\n  b: !x 1\n"),
        (2, "a.b: tags are not allowed".to_owned())
    );
    assert_eq!(
        error("a: !!int x\n"),
        (1, "a: value is not of type !!int".to_owned())
    );
}

#[test]
fn syntax_errors_have_a_line() {
    for (text, line, reason) in [
        ("a: 1\n\tb: 2\n", 2, "a tab cannot indent: use spaces"),
        ("a:\n\tb: 2\n", 2, "a tab cannot indent: use spaces"),
        ("a: 1\nb: \"x\nc: 2\n", 2, "the quoted string is not closed"),
        ("a: 1\nb: [x\n", 2, "'[' is not closed"),
        (
            "a: 1\n  b: 2\n",
            2,
            "':' is not allowed here: check the indentation, or quote the value",
        ),
        ("a: 1\nb: @x\n", 2, "'@' cannot begin a value: quote it"),
        (
            "a: 1\nb: [x,,y]\n",
            2,
            "a value is missing between brackets",
        ),
        ("a: 1\nb: *x\n", 2, "no anchor has the name of this alias"),
    ] {
        let expected = (line, format!("not valid YAML: {reason}"));
        assert_eq!(error(text), expected, "{text:?}");
    }
}

#[test]
fn kind_and_name_are_known_of_a_broken_document() {
    let broken = |text: &str| {
        let error = parse(text).expect_err("an error");
        (error.kind, error.name)
    };
    let both = (Some("Site".to_owned()), Some("a".to_owned()));
    assert_eq!(broken("kind: Site\nmetadata: {name: a}\nspec: [\n"), both);
    assert_eq!(
        broken("kind: Site\nmetadata:\n  name: a\n  labels: !x 1\n"),
        both
    );
    assert_eq!(broken("a: *x\n"), (None, None));
}
