//! The `Prefer` header: what a client asks for and what is said to have been applied.

use super::super::error::GraphError;
use super::super::ids::IdForm;
use super::super::input::preferred_zone;
use super::super::view::Style;
use super::super::zones::Zone;

/// The preferences of one request.
#[derive(Debug, Clone, Default)]
pub(super) struct Prefer {
    pub zone: Option<Zone>,
    pub text_bodies: bool,
    pub page_size: Option<usize>,
    pub form: IdForm,
    /// Preferences as sent, to be echoed in `Preference-Applied`.
    pub applied: Vec<String>,
}

impl Prefer {
    /// Reads all `Prefer` headers; unknown preferences are ignored.
    ///
    /// # Errors
    /// When the preferred zone is unknown.
    pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Self, GraphError> {
        let mut prefer = Self::default();
        for header in headers {
            for preference in split(header) {
                let (name, value) = preference.split_once('=').unwrap_or((preference.as_str(), ""));
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "outlook.timezone" => prefer.zone = Some(preferred_zone(value)?),
                    "outlook.body-content-type" => prefer.text_bodies = value.eq_ignore_ascii_case("text"),
                    "odata.maxpagesize" | "maxpagesize" => match value.parse::<usize>() {
                        Ok(size) if size > 0 => prefer.page_size = Some(size.min(1000)),
                        _ => continue,
                    },
                    "idtype" if value.eq_ignore_ascii_case("ImmutableId") => prefer.form = IdForm::Immutable,
                    _ => continue,
                }
                prefer.applied.push(preference.trim().to_owned());
            }
        }
        Ok(prefer)
    }

    pub(super) fn style(&self) -> Style {
        Style { zone: self.zone.clone().unwrap_or_else(Zone::utc), text_bodies: self.text_bodies, form: self.form }
    }
}

/// Splits at commas and semicolons that are not inside quotes.
fn split(header: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in header.chars() {
        quoted ^= c == '"';
        if matches!(c, ',' | ';') && !quoted {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_preferences_in_one_header_are_read() {
        let header = "outlook.timezone=\"Pacific Standard Time\", IdType=\"ImmutableId\",odata.maxpagesize=50";
        let prefer =
            Prefer::parse([header, "outlook.body-content-type=\"text\"", "return=minimal"].into_iter()).unwrap();
        assert_eq!(prefer.zone.unwrap().name, "Pacific Standard Time");
        assert_eq!((prefer.form, prefer.page_size, prefer.text_bodies), (IdForm::Immutable, Some(50), true));
        assert_eq!(prefer.applied.len(), 4);
    }

    #[test]
    fn unknown_zone_is_an_error() {
        assert!(Prefer::parse(["outlook.timezone=\"Nowhere\""].into_iter()).is_err());
    }
}
