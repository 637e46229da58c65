//! `explain`: the page of a reason or an error code.

use calbridge_core::document::nearest;
use calbridge_core::reason::Reason;

use super::args::ExplainArgs;
use super::output::{Exit, Output};
use super::pages::{PAGES, page};

/// Prints the page, or the list of all.
pub(super) fn run(args: &ExplainArgs, output: &mut Output<'_>) -> Exit {
    let Some(wanted) = &args.reason else {
        for (code, text) in PAGES {
            output.print(&format!("{code}  {}", title(code, text)));
        }
        return Exit::Done;
    };
    let code = Reason::find(wanted).map_or_else(|| wanted.to_uppercase(), |reason| reason.code().to_owned());
    let found = page(&code).or_else(|| {
        PAGES.iter().find(|(code, text)| title(code, text).eq_ignore_ascii_case(wanted)).map(|(_, text)| *text)
    });
    if let Some(text) = found {
        output.print(text.trim_end());
        return Exit::Done;
    }
    let names: Vec<&str> = PAGES.iter().flat_map(|(code, text)| [*code, title(code, text)]).collect();
    let mend = match nearest(wanted, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`calbridge explain` lists all of them".to_owned(),
    };
    output.complain(&format!("`{wanted}` is no reason and no error code; {mend}"));
    Exit::NotFound
}

/// Returns the name on the first line of a page: `# CB2014 conflict_outlook_wins`.
fn title<'a>(code: &str, text: &'a str) -> &'a str {
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches('#').trim().trim_start_matches(code).trim()
}
