//! Documentation: links resolve, lines fit a screen, and examples that no test runs are accepted by
//! the programs and the manifest reader.

use clap::Parser;
use skupper_tests::{
    pages::{Block, Page, words},
    program, workspace,
};
use skupperd::manifest;
use std::{
    path::{Component, Path, PathBuf},
    process::Command as Process,
};

/// Maximum size of the README in bytes.
const README: usize = 6000;
/// Maximum width of a line outside of tables and code.
pub(crate) const COLUMNS: usize = 100;
/// Maximum length of a paragraph in lines.
const LINES: usize = 5;

/// All pages, the generated ones included.
fn pages() -> Vec<Page> {
    let mut pages = vec![Page::read("README.md"), Page::read("tests/README.md")];
    for dir in [
        "docs",
        ".github",
        "packaging",
        "fuzz",
        "tests/contract",
        "tests/vectors",
    ] {
        pages.extend(Page::all(dir));
    }
    pages
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn links_between_pages_lead_to_files_and_headings() {
    let mut wrong = Vec::new();
    for page in pages() {
        let dir = Path::new(&page.path).parent().expect("a directory");
        for (line, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to = match file {
                "" => PathBuf::from(&page.path),
                file => normal(&dir.join(file)),
            };
            let at = format!("{}:{line}: {target}", page.path);
            if !workspace().join(&to).exists() {
                wrong.push(format!("{at}: no such file"));
            } else if !anchor.is_empty() {
                let to = Page::read(&to.to_string_lossy());
                if !to.anchors().contains(&anchor.to_owned()) {
                    wrong.push(format!("{at}: no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_first_page_is_short() {
    let readme = Page::read("README.md");
    assert!(
        readme.text.len() <= README,
        "README.md: {} bytes, {README} at most",
        readme.text.len()
    );
}

#[test]
fn lines_and_paragraphs_fit_a_screen() {
    let mut wrong = Vec::new();
    for page in pages() {
        let mut paragraph = 0;
        let mut last = 0;
        for (n, line) in page.prose() {
            let table = line.starts_with('|');
            if !table && line.chars().count() > COLUMNS {
                wrong.push(format!("{}:{n}: more than {COLUMNS} columns", page.path));
            }
            let starts = line.is_empty() || n != last + 1 || line.starts_with(['|', '#', '<']);
            let item = line.starts_with("- ") || line.starts_with(|c: char| c.is_ascii_digit());
            paragraph = match (starts, item) {
                (true, _) => usize::from(!line.is_empty() && !table),
                (false, true) => 1,
                (false, false) => paragraph + 1,
            };
            if paragraph == LINES + 1 {
                wrong.push(format!("{}:{n}: more than {LINES} lines", page.path));
            }
            last = n;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Parses the calls of the two programs in a block. `skupperd` parses its own with `--help` appended.
fn parse(block: &Block) -> Result<(), String> {
    for line in block.text.replace("\\\n", " ").lines() {
        let line = line.trim_start().trim_start_matches("sudo ");
        let words = words(line);
        match words.first().map(String::as_str) {
            Some("skupper") => match skupperd::cli::CommandLine::try_parse_from(&words) {
                Err(e) if e.use_stderr() => return Err(e.to_string()),
                _ => {}
            },
            Some("skupperd") => {
                let mut daemon = Process::new(program("skupperd"));
                let output = daemon.args(&words[1..]).arg("--help").output();
                let output = output.expect("skupperd runs");
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).into_owned());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn an_invalid_call_of_either_program_is_found() {
    let block = |text: &str| Block {
        line: 1,
        language: "sh".to_owned(),
        words: Vec::new(),
        text: text.to_owned(),
    };
    parse(&block("skupperd --root /tmp/site\nskupper site create a\n")).expect("valid");
    for bad in [
        "skupperd --no-such",
        "skupperd --workers x",
        "skupper nothing",
    ] {
        parse(&block(bad)).expect_err(bad);
    }
}

#[test]
fn examples_are_what_the_command_and_the_manifest_reader_accept() {
    let mut wrong = Vec::new();
    for page in pages() {
        for block in &page.blocks {
            let at = format!("{}:{}", page.path, block.line);
            let result = match block.language.as_str() {
                "sh" => parse(block),
                "yaml" => manifest::parse(Path::new(&at), block.text.as_bytes(), None)
                    .into_iter()
                    .try_for_each(|document| document.map(drop).map_err(|e| e.to_string())),
                _ => Ok(()),
            };
            wrong.extend(result.err().map(|e| format!("{at}: {e}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A page of the guide has a YAML example, a command line, and a section about limits.
#[test]
fn each_page_of_the_guide_has_a_manifest_a_command_and_its_limits() {
    for page in Page::all("docs/guide") {
        let has = |language: &str| page.blocks.iter().any(|b| b.language == language);
        assert!(has("sh"), "{}: no command", page.path);
        assert!(has("yaml"), "{}: no manifest", page.path);
        assert!(
            page.anchors().contains(&"limits".to_owned()),
            "{}: no heading Limits",
            page.path
        );
    }
}

/// Checks rows `| step | file | function |`: files are below `skupperd/src`.
#[test]
fn each_step_of_a_walk_names_a_file_and_a_function_that_exist() {
    let page = Page::read("docs/architecture.md");
    let mut steps = 0;
    let mut wrong = Vec::new();
    for (n, line) in page.prose() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", _, file, function, ""] = cells[..] else {
            continue;
        };
        let (file, function) = (file.trim_matches('`'), function.trim_matches('`'));
        if !file.ends_with(".rs") {
            continue;
        }
        steps += 1;
        let text = std::fs::read_to_string(workspace().join("skupperd/src").join(file));
        let found = text.is_ok_and(|text| {
            ["(", "<"]
                .iter()
                .any(|end| text.contains(&format!("fn {function}{end}")))
        });
        if !found {
            wrong.push(format!(
                "docs/architecture.md:{n}: no fn {function} in {file}"
            ));
        }
    }
    assert!(steps > 30, "{steps} steps");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
