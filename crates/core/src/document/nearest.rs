//! The nearest known name: what a person probably meant.

/// Returns the candidate closest to `given`, if one is close enough to be a slip of the pen.
///
/// Letter case alone counts as no difference; otherwise about one slip per three letters is forgiven.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower: Vec<char> = given.to_lowercase().chars().take(80).collect();
    let allowed = (lower.len() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| {
            let other: Vec<char> = candidate.to_lowercase().chars().take(80).collect();
            (slips(&lower, &other), candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Counts insertions, deletions, replacements and swaps of neighbours between two words.
fn slips(left: &[char], right: &[char]) -> usize {
    let width = right.len() + 1;
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..width).collect();
    for (row, a) in left.iter().enumerate() {
        let mut line = Vec::with_capacity(width);
        line.push(row + 1);
        for (column, b) in right.iter().enumerate() {
            let mut best = (above[column] + usize::from(a != b)).min(above[column + 1] + 1);
            best = best.min(line[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                best = best.min(before[column - 1] + 1);
            }
            line.push(best);
        }
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_recognised_and_other_words_are_not() {
        let known = ["client_id", "client_secret", "tenant_id"];
        assert_eq!(nearest("client_sercet", known), Some("client_secret"));
        assert_eq!(nearest("Tenant_ID", known), Some("tenant_id"));
        assert_eq!(nearest("tenantid", known), Some("tenant_id"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
