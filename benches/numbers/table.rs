//! The printed table: what, the goal, what was measured, whether it is met.

/// Rows so far; each is printed when it is known, too, so that a long run shows its progress.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    /// Adds a figure; `met` is none where there is no goal.
    pub(crate) fn add(&mut self, what: &str, goal: &str, measured: String, met: Option<bool>) {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        println!("  {what}: {measured}");
        self.rows.push([what.to_owned(), goal.to_owned(), measured, verdict.to_owned()]);
    }

    /// Prints everything, in Markdown.
    pub(crate) fn print(&self) {
        println!("\n| what | goal | measured | |\n|---|---|---|---|");
        for [what, goal, measured, verdict] in &self.rows {
            println!("| {what} | {goal} | {measured} | {verdict} |");
        }
    }
}
