//! Loading: layers on top of each other, then every check, then the typed configuration or every problem.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use calbridge_core::document::{Node, Place, Report, Section, Shape, nearest, overlay, parse};
use calbridge_core::mapping::{Mapping, MappingSpec};

use super::build;
use super::check::{check, variable};
use super::enrolments;
use super::model::{Config, MappingSource};
use super::options::OPTIONS;
use super::problem::{ConfigProblem, ENVIRONMENT, MAPPING_UNREADABLE, UNREADABLE};
use super::values::Values;

/// The built-in defaults: the lowest layer and the one place where defaults are.
pub const DEFAULT_YAML: &str = include_str!("../../config/calbridge.default.yaml");

/// The built-in mapping.
pub const DEFAULT_MAPPING: &str = include_str!("../../mappings/default.yaml");

/// Name of the built-in defaults in messages.
const DEFAULT_NAME: &str = "calbridge.default.yaml (built in)";

/// Reads files; a trait, so that tests need none.
pub trait Files {
    /// Returns the content of a file.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    fn read(&self, path: &Path) -> Result<String, String>;

    /// Tells whether people other than the file's owner and group may read it.
    fn is_open_to_all(&self, _path: &Path) -> bool {
        false
    }
}

/// Largest file read, in bytes: far above any configuration, mapping, secret or endpoints file; `/dev/zero` has no end.
const LARGEST_FILE: u64 = 2 * 1024 * 1024;

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if metadata.is_dir() {
            return Err("it is a directory".to_owned());
        }
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(format!("it is longer than {LARGEST_FILE} bytes; is it the right file?"));
        }
        String::from_utf8(bytes).map_err(|error| {
            let whole = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = whole.split(|byte| *byte == b'\n').count();
            format!("line {line} is not UTF-8 text; save the file as UTF-8")
        })
    }

    #[cfg(unix)]
    fn is_open_to_all(&self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }
}

/// What a configuration is put together from, lowest layer first after the built-in defaults.
pub struct Sources<'a> {
    /// The file that the person gave: its path as given, and its content.
    pub file: Option<(PathBuf, String)>,
    /// Values that a tool gives, such as the addresses of a local sandbox: dotted key, value, and where it came from.
    pub given: Vec<(String, String, Place)>,
    /// Enrolments that a tool gives, used where the file lists none: mailbox and Salesforce user.
    pub given_enrolments: Vec<(String, String)>,
    /// Environment variables: name and value.
    pub environment: Vec<(String, String)>,
    /// Where files are read from.
    pub files: &'a dyn Files,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.as_ref().map(|(path, _)| path);
        f.debug_struct("Sources").field("file", &file).finish_non_exhaustive()
    }
}

/// Loads the file at `path` (or the defaults alone), with the process's environment.
///
/// # Errors
/// Every problem, sorted by file and line.
pub fn load_file(path: Option<&Path>) -> Result<Config, Vec<ConfigProblem>> {
    load(&Sources {
        file: path.map(read_config).transpose()?,
        given: Vec::new(),
        given_enrolments: Vec::new(),
        environment: environment(),
        files: &Disk,
    })
}

/// Reads the text of a configuration file.
pub(super) fn read_config(path: &Path) -> Result<(PathBuf, String), Vec<ConfigProblem>> {
    match Disk.read(path) {
        Ok(text) => Ok((path.to_path_buf(), text)),
        Err(why) => Err(vec![ConfigProblem {
            file: path.display().to_string(),
            line: 0,
            code: UNREADABLE,
            message: format!("cannot read the configuration: {why}; give its path with `--config`"),
        }]),
    }
}

/// Returns the process's environment; names and values that are no text are left out.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Loads a configuration from its sources.
///
/// # Errors
/// Every problem, sorted by file and line.
pub fn load(sources: &Sources<'_>) -> Result<Config, Vec<ConfigProblem>> {
    let mut problems: Vec<ConfigProblem> = Vec::new();
    let name = sources.file.as_ref().map(|(path, _)| path.display().to_string());
    let tree = match layered(sources, name.as_deref(), &mut problems) {
        Ok(tree) => tree,
        Err(broken) => return Err(broken.into_iter().map(ConfigProblem::from).collect()),
    };
    let report = Report::new();
    let mut warnings = Vec::new();
    let mut loaded = None;
    if let Some(top) = Section::open(&tree, "", &report) {
        let folder = sources.file.as_ref().and_then(|(path, _)| path.parent()).unwrap_or(Path::new(""));
        let folder = name.as_deref().map(|name| (name, folder));
        let values = check(&top, sources.files, folder, &mut problems, &mut warnings);
        let list = enrolments::read(&top, &mut problems);
        let mapping = mapping(&values, sources.files, &mut problems);
        loaded = Some((values, list, mapping));
    }
    problems.extend(report.into_problems().into_iter().map(ConfigProblem::from));
    for problem in &mut problems {
        // What is missing is missing in the person's file, not in ours.
        if problem.file == DEFAULT_NAME {
            problem.file = name.clone().unwrap_or_else(|| "configuration (no file given)".to_owned());
            problem.line = usize::from(name.is_some());
        }
    }
    problems.sort();
    problems.dedup();
    match loaded {
        Some((values, list, Some(mapping))) if problems.is_empty() => {
            Ok(Config { warnings, ..build::build(&values, list, mapping) })
        }
        _ => Err(problems),
    }
}

fn layered(
    sources: &Sources<'_>,
    name: Option<&str>,
    problems: &mut Vec<ConfigProblem>,
) -> Result<Node, Vec<calbridge_core::document::Problem>> {
    let mut tree = parse(DEFAULT_NAME, DEFAULT_YAML)?;
    if let (Some((_, text)), Some(name)) = (&sources.file, name) {
        let file = parse(name, text)?;
        overlay(&mut tree, file);
    }
    for (key, value, place) in &sources.given {
        tree.set(key, plain(value, place.clone()));
    }
    if let Some((_, _, place)) = sources.given.first()
        && tree.get("enrolments").is_none_or(|node| node.shape == Shape::Null)
    {
        tree.set("enrolments", enrolment_list(&sources.given_enrolments, place));
    }
    overlay_environment(&mut tree, &sources.environment, problems);
    Ok(tree)
}

fn plain(value: &str, place: Place) -> Node {
    Node { shape: Shape::Scalar { text: value.to_owned(), quoted: false }, place }
}

fn enrolment_list(list: &[(String, String)], place: &Place) -> Node {
    let items = list
        .iter()
        .map(|(mailbox, user)| {
            let mut item = Node { shape: Shape::Map(Vec::new()), place: place.clone() };
            item.set("mailbox", Node::text(mailbox, place.clone()));
            item.set("salesforce_user", Node::text(user, place.clone()));
            item
        })
        .collect();
    Node { shape: Shape::List(items), place: place.clone() }
}

fn overlay_environment(tree: &mut Node, environment: &[(String, String)], problems: &mut Vec<ConfigProblem>) {
    for (name, value) in environment {
        // Names without `__` are not ours: Kubernetes itself sets CALBRIDGE_PORT and the like for a service `calbridge`.
        if !name.starts_with("CALBRIDGE_") || !name.contains("__") {
            continue;
        }
        let place = Place::whole(format!("environment variable {name}"));
        match OPTIONS.iter().find(|option| variable(option.key) == *name) {
            Some(option) if option.kind.from_environment() => tree.set(option.key, Node::text(value, place)),
            Some(option) => {
                let message =
                    format!("only secrets and addresses come from the environment; set `{}` in the file", option.key);
                problems.push(ConfigProblem::new(&place, ENVIRONMENT, message));
            }
            None => {
                let known: Vec<String> = OPTIONS
                    .iter()
                    .filter(|option| option.kind.from_environment())
                    .map(|option| variable(option.key))
                    .collect();
                let mend = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "remove it; `calbridge config reference` lists the options".to_owned(),
                };
                problems.push(ConfigProblem::new(&place, ENVIRONMENT, format!("no option has this name; {mend}")));
            }
        }
    }
}

/// Reads and checks the mapping file, so that its problems come with the others.
fn mapping(values: &Values, files: &dyn Files, problems: &mut Vec<ConfigProblem>) -> Option<MappingSource> {
    let (name, text) = match values.path("sync.mapping_file") {
        None => ("default.yaml (built in)".to_owned(), DEFAULT_MAPPING.to_owned()),
        Some(path) => match files.read(&path) {
            Ok(text) => (path.display().to_string(), text),
            Err(why) => {
                let place = values.place("sync.mapping_file").cloned().unwrap_or_else(|| Place::whole("configuration"));
                let message = format!(
                    "`sync.mapping_file`: cannot read `{}`: {why}; give the path of a mapping file",
                    path.display()
                );
                problems.push(ConfigProblem::new(&place, MAPPING_UNREADABLE, message));
                return None;
            }
        },
    };
    let compiled = MappingSpec::parse(&name, &text).and_then(|spec| Mapping::compile(&spec));
    match compiled {
        Ok(mapping) => Some(MappingSource { name, mapping }),
        Err(wrong) => {
            problems.extend(wrong.into_iter().map(ConfigProblem::from));
            None
        }
    }
}
