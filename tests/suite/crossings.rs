//! Create, update and delete reach the other side, field by field; edits on both sides at once.

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::{Value, json};

use crate::support::Rehearsal;
use crate::support::look::gives;
use crate::support::meetings::{all_day_in_outlook, all_day_in_salesforce, fields, id_of, in_outlook, in_salesforce};

/// Makes a meeting in Outlook and waits until it crossed; returns both ids.
async fn linked(rehearsal: &Rehearsal, subject: &str) -> (String, String) {
    let event = id_of(&rehearsal.person(0).create_in_outlook(&in_outlook(subject)).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.settled().await;
    (event, id_of(&rehearsal.salesforce()[0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_made_in_outlook_appears_in_salesforce_and_follows_edits_of_both_sides() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let person = rehearsal.person(0);
    let made = person.create_in_outlook(&in_outlook("Review")).unwrap();
    let event = made["id"].as_str().unwrap();
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    let row = rehearsal.salesforce().remove(0);
    assert_eq!(row["Subject"], "Review");
    assert_eq!(row["StartDateTime"], "2026-12-01T09:00:00.000+0000");
    assert_eq!(row["EndDateTime"], "2026-12-01T10:00:00.000+0000");
    assert_eq!(row["Location"], "Room 1");
    assert_eq!(row["Description"], "agenda\nas always");
    assert_eq!(row["ShowAs"], "Busy");
    assert_eq!(row["OwnerId"], person.mailbox().salesforce_user_id.as_str());

    let id = row["Id"].as_str().unwrap();
    let patch = json!({"Subject": "Review, moved", "StartDateTime": "2026-12-02T09:00:00Z",
        "EndDateTime": "2026-12-02T09:30:00Z", "Location": "Room 2", "ShowAs": "Free"});
    person.update_in_salesforce(id, patch.as_object().unwrap()).unwrap();
    rehearsal.until("the edit is in Outlook", |r| r.outlook(0)[0]["subject"] == "Review, moved").await;
    let back = rehearsal.outlook(0).remove(0);
    assert_eq!(back["start"]["dateTime"], "2026-12-02T09:00:00.0000000");
    assert_eq!(back["end"]["dateTime"], "2026-12-02T09:30:00.0000000");
    assert_eq!(back["originalStartTimeZone"], "W. Europe Standard Time", "the organiser's zone is kept");
    assert_eq!(back["location"]["displayName"], "Room 2");
    assert_eq!(back["showAs"], "free");

    person.delete_in_outlook(event).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().is_empty()).await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.writes(Cloud::Salesforce).len(), 2, "one creation, one deletion");
    assert_eq!(rehearsal.writes(Cloud::Outlook).len(), 1, "one update");
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_made_in_salesforce_appears_in_outlook_and_its_deletion_follows() {
    let rehearsal = Rehearsal::start(Options::default(), "").await;
    let person = rehearsal.person(1);
    let id = person.create_in_salesforce(in_salesforce("Visit")).unwrap();
    rehearsal.until("it is in Outlook", |r| r.outlook(1).len() == 1).await;
    let event = rehearsal.outlook(1).remove(0);
    assert_eq!(event["subject"], "Visit");
    assert_eq!(event["start"]["dateTime"], "2026-12-01T09:00:00.0000000");
    assert_eq!(event["location"]["displayName"], "Room 1");
    assert!(event["body"]["content"].as_str().unwrap().contains("agenda"));
    assert_eq!(event["showAs"], "busy");

    person.delete_in_salesforce(&id).unwrap();
    rehearsal.until("it is gone from Outlook", |r| r.outlook(1).is_empty()).await;
    rehearsal.settled().await;
    assert_eq!(rehearsal.writes(Cloud::Salesforce).len(), 0);
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_follows_to_the_side_where_the_meeting_was_made() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let (_, made_in_outlook) = linked(&rehearsal, "Made in Outlook").await;
    rehearsal.person(0).delete_in_salesforce(&made_in_outlook).unwrap();
    rehearsal.until("it is gone from Outlook", |r| r.outlook(0).is_empty()).await;

    rehearsal.person(2).create_in_salesforce(in_salesforce("Made in Salesforce")).unwrap();
    rehearsal.until("it is in Outlook", |r| r.outlook(2).len() == 1).await;
    rehearsal.settled().await;
    let event = id_of(&rehearsal.outlook(2)[0]);
    rehearsal.person(2).delete_in_outlook(&event).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().is_empty()).await;
    rehearsal.rest().await;
    assert!(rehearsal.salesforce().is_empty() && rehearsal.outlook(0).is_empty() && rehearsal.outlook(2).is_empty());
    assert_eq!(rehearsal.written(), (2, 2), "one creation and one deletion on each side");
    let story = rehearsal.story(&made_in_outlook).await;
    assert!(gives(&story, "deleted_in_salesforce"), "{story:#}");
    let kept =
        story["lines"].as_array().unwrap().iter().any(|line| line["values"]["before"]["subject"] == "Made in Outlook");
    assert!(kept, "what was deleted stays in the journal: {story:#}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_follows_from_outlook_with_one_write_an_edit() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let (event, _) = linked(&rehearsal, "Fields").await;
    let person = rehearsal.person(0);
    let time = |day: &str, from: &str, to: &str, zone: &str| {
        json!({"start": {"dateTime": format!("{day}T{from}"), "timeZone": zone},
               "end": {"dateTime": format!("{day}T{to}"), "timeZone": zone}})
    };
    let edits = [
        (json!({"subject": "Fields, renamed"}), "Subject", json!("Fields, renamed")),
        (json!({"location": {"displayName": "Room 2"}}), "Location", json!("Room 2")),
        (json!({"location": {"displayName": ""}}), "Location", Value::Null),
        (json!({"body": {"contentType": "text", "content": "one\r\ntwo"}}), "Description", json!("one\ntwo")),
        (json!({"body": {"contentType": "html", "content": "<p>fat <b>cat</b></p>"}}), "Description", json!("fat cat")),
        (json!({"body": {"contentType": "text", "content": ""}}), "Description", Value::Null),
        (json!({"showAs": "free"}), "ShowAs", json!("Free")),
        (json!({"showAs": "oof"}), "ShowAs", json!("OutOfOffice")),
        (json!({"showAs": "tentative"}), "ShowAs", json!("Busy")),
        (json!({"showAs": "free"}), "ShowAs", json!("Free")),
        (json!({"showAs": "workingElsewhere"}), "ShowAs", json!("Busy")),
        (json!({"showAs": "oof"}), "ShowAs", json!("OutOfOffice")),
        (json!({"showAs": "busy"}), "ShowAs", json!("Busy")),
        (
            time("2026-12-03", "14:00:00", "14:45:00", "India Standard Time"),
            "StartDateTime",
            json!("2026-12-03T08:30:00.000+0000"),
        ),
        (
            json!({"end": {"dateTime": "2026-12-03T16:00:00", "timeZone": "India Standard Time"}}),
            "DurationInMinutes",
            json!(120),
        ),
    ];
    for (number, (patch, field, value)) in edits.iter().enumerate() {
        person.update_in_outlook(&event, patch).unwrap();
        rehearsal.until(&format!("{field} is {value}"), |r| r.salesforce()[0][*field] == *value).await;
        rehearsal.settled().await;
        assert_eq!(rehearsal.written(), (0, number + 2), "after {patch}");
    }
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, edits.len() + 1));
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_follows_from_salesforce_with_one_write_an_edit_and_the_body_stays() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let (_, id) = linked(&rehearsal, "Fields").await;
    let person = rehearsal.person(0);
    let edits = [
        (json!({"Subject": "Fields, renamed"}), "/subject", json!("Fields, renamed")),
        (json!({"Location": "Room 2"}), "/location/displayName", json!("Room 2")),
        (json!({"Location": null}), "/location/displayName", json!("")),
        (json!({"ShowAs": "Free"}), "/showAs", json!("free")),
        (json!({"ShowAs": "OutOfOffice"}), "/showAs", json!("oof")),
        (json!({"ShowAs": "Busy"}), "/showAs", json!("busy")),
        (
            json!({"StartDateTime": "2026-12-04T09:00:00Z", "EndDateTime": "2026-12-04T09:20:00Z"}),
            "/start/dateTime",
            json!("2026-12-04T09:00:00.0000000"),
        ),
        (json!({"DurationInMinutes": 50}), "/end/dateTime", json!("2026-12-04T09:50:00.0000000")),
    ];
    for (number, (patch, pointer, value)) in edits.iter().enumerate() {
        person.update_in_salesforce(&id, &fields(patch.clone())).unwrap();
        let shown = |r: &Rehearsal| r.outlook(0)[0].pointer(pointer) == Some(value);
        rehearsal.until(&format!("{pointer} is {value}"), shown).await;
        rehearsal.settled().await;
        assert_eq!(rehearsal.written(), (number + 1, 1), "after {patch}");
    }
    person.update_in_salesforce(&id, &fields(json!({"Description": "only here"}))).unwrap();
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (edits.len(), 1), "the description goes to Outlook at creation only");
    let story = rehearsal.story(&id).await;
    assert!(gives(&story, "one_way_field"), "{story:#}");
    let body = rehearsal.outlook(0)[0]["body"]["content"].as_str().unwrap().to_owned();
    assert!(body.contains("agenda"), "{body}");
    rehearsal.assert_clean();

    person
        .update_in_outlook(
            &id_of(&rehearsal.outlook(0)[0]),
            &json!({"body": {"contentType": "text", "content": "new"}}),
        )
        .unwrap();
    rehearsal.until("Outlook's body is in Salesforce", |r| r.salesforce()[0]["Description"] == "new").await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finer_choice_in_outlook_survives_an_edit_in_salesforce() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let (event, id) = linked(&rehearsal, "Choice").await;
    let person = rehearsal.person(0);
    person.update_in_outlook(&event, &json!({"showAs": "tentative"})).unwrap();
    person.update_in_salesforce(&id, &fields(json!({"Location": "Room 9"}))).unwrap();
    rehearsal.until("the place is in Outlook", |r| r.outlook(0)[0]["location"]["displayName"] == "Room 9").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.outlook(0)[0]["showAs"], "tentative");
    assert_eq!(rehearsal.salesforce()[0]["ShowAs"], "Busy");
    assert_eq!(rehearsal.written(), (1, 1), "Salesforce said busy all the time");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_days_cross_both_ways_on_the_right_dates() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    // Mailboxes west and east of UTC: a date that went through a zone would shift in one of them.
    let zones = ["W. Europe Standard Time", "Eastern Standard Time", "India Standard Time"];
    for (number, zone) in zones.into_iter().enumerate() {
        let person = rehearsal.person(number);
        let made = all_day_in_outlook(&format!("Fair {number}"), zone, "2026-12-24", "2026-12-27");
        person.create_in_outlook(&made).unwrap();
        person
            .create_in_salesforce({
                let mut made = all_day_in_salesforce("2026-12-30", "2026-12-31");
                made.insert("Subject".to_owned(), json!(format!("Trip {number}")));
                made
            })
            .unwrap();
    }
    rehearsal.until("all crossed", |r| r.salesforce().len() == 6 && (0..3).all(|n| r.outlook(n).len() == 2)).await;
    rehearsal.settled().await;
    for number in 0..3 {
        let row = find(&rehearsal.salesforce(), "Subject", &format!("Fair {number}"));
        assert_eq!(row["IsAllDayEvent"], true);
        assert_eq!(row["StartDateTime"], "2026-12-24T00:00:00.000+0000");
        assert_eq!(row["EndDateTime"], "2026-12-26T00:00:00.000+0000");
        let event = find(&rehearsal.outlook(number), "subject", &format!("Trip {number}"));
        assert_days(&event, "2026-12-30", "2027-01-01");
        // On: a day earlier in Salesforce.
        let earlier = all_day_in_salesforce("2026-12-23", "2026-12-23");
        rehearsal.person(number).update_in_salesforce(&id_of(&row), &earlier).unwrap();
    }
    rehearsal
        .until("the days moved", |r| {
            (0..3).all(|n| starts(&find(&r.outlook(n), "subject", &format!("Fair {n}"))) == "2026-12-23")
        })
        .await;
    for number in 0..3 {
        assert_days(
            &find(&rehearsal.outlook(number), "subject", &format!("Fair {number}")),
            "2026-12-23",
            "2026-12-24",
        );
    }
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (6, 3), "three creations on each side and three moves to Outlook");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_switches_between_hours_and_whole_days_on_either_side() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let (event, id) = linked(&rehearsal, "Switch").await;
    let person = rehearsal.person(0);
    let zone = "W. Europe Standard Time";

    let mut days = all_day_in_outlook("Switch", zone, "2026-12-05", "2026-12-06");
    days.as_object_mut().unwrap().remove("showAs");
    person.update_in_outlook(&event, &days).unwrap();
    rehearsal.until("whole days in Salesforce", |r| r.salesforce()[0]["IsAllDayEvent"] == true).await;
    assert_eq!(rehearsal.salesforce()[0]["StartDateTime"], "2026-12-05T00:00:00.000+0000");
    assert_eq!(rehearsal.salesforce()[0]["EndDateTime"], "2026-12-05T00:00:00.000+0000");

    let hours =
        json!({"IsAllDayEvent": false, "StartDateTime": "2026-12-05T08:00:00Z", "EndDateTime": "2026-12-05T09:00:00Z"});
    person.update_in_salesforce(&id, &fields(hours)).unwrap();
    rehearsal.until("hours in Outlook", |r| r.outlook(0)[0]["isAllDay"] == false).await;
    assert_eq!(rehearsal.outlook(0)[0]["start"]["dateTime"], "2026-12-05T08:00:00.0000000");
    assert_eq!(rehearsal.outlook(0)[0]["end"]["dateTime"], "2026-12-05T09:00:00.0000000");
    rehearsal.settled().await;

    person.update_in_salesforce(&id, &all_day_in_salesforce("2026-12-07", "2026-12-08")).unwrap();
    rehearsal.until("whole days in Outlook", |r| r.outlook(0)[0]["isAllDay"] == true).await;
    assert_days(&rehearsal.outlook(0)[0], "2026-12-07", "2026-12-09");
    rehearsal.settled().await;

    let hours = json!({"isAllDay": false, "start": {"dateTime": "2026-12-07T09:00:00", "timeZone": zone},
        "end": {"dateTime": "2026-12-07T10:30:00", "timeZone": zone}});
    person.update_in_outlook(&event, &hours).unwrap();
    rehearsal.until("hours in Salesforce", |r| r.salesforce()[0]["IsAllDayEvent"] == false).await;
    assert_eq!(rehearsal.salesforce()[0]["StartDateTime"], "2026-12-07T08:00:00.000+0000");
    assert_eq!(rehearsal.salesforce()[0]["DurationInMinutes"], 90);
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (2, 3));
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_different_fields_on_both_sides_at_once_both_survive() {
    let rehearsal = Rehearsal::start(Options { speed: 5.0, ..Options::default() }, "").await;
    let (event, id) = linked(&rehearsal, "Both").await;
    let person = rehearsal.person(0);
    person.update_in_outlook(&event, &json!({"subject": "Both, renamed"})).unwrap();
    person.update_in_salesforce(&id, &fields(json!({"Location": "Room 3", "ShowAs": "Free"}))).unwrap();
    rehearsal
        .until("both edits are on both sides", |r| {
            let (event, row) = (&r.outlook(0)[0], &r.salesforce()[0]);
            event["location"]["displayName"] == "Room 3" && row["Subject"] == "Both, renamed"
        })
        .await;
    rehearsal.rest().await;
    let (event, row) = (rehearsal.outlook(0).remove(0), rehearsal.salesforce().remove(0));
    assert_eq!((&event["subject"], &row["Subject"]), (&json!("Both, renamed"), &json!("Both, renamed")));
    assert_eq!((&event["location"]["displayName"], &row["Location"]), (&json!("Room 3"), &json!("Room 3")));
    assert_eq!((&event["showAs"], &row["ShowAs"]), (&json!("free"), &json!("Free")));
    assert_eq!(rehearsal.written(), (1, 2));
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_edits_of_one_field_outlooks_wins_and_the_other_is_in_the_journal() {
    let rehearsal = Rehearsal::start(Options { speed: 5.0, ..Options::default() }, "").await;
    let (event, id) = linked(&rehearsal, "Conflict").await;
    let person = rehearsal.person(0);
    person.update_in_salesforce(&id, &fields(json!({"Subject": "theirs"}))).unwrap();
    person.update_in_outlook(&event, &json!({"subject": "ours"})).unwrap();
    rehearsal.until("Outlook won", |r| r.salesforce()[0]["Subject"] == "ours").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.outlook(0)[0]["subject"], "ours");
    assert_eq!(rehearsal.salesforce()[0]["Subject"], "ours");
    assert_eq!(rehearsal.written(), (0, 2), "the creation and the winner");

    let story = rehearsal.story(&id).await;
    let lines = story["lines"].as_array().unwrap();
    let decided = lines.iter().find(|line| gives(&json!({"lines": [line]}), "conflict_outlook_wins"));
    let decided = decided.unwrap_or_else(|| panic!("the conflict is told: {story:#}"));
    assert_eq!(decided["values"]["salesforce"]["subject"], "theirs", "the loser: {decided:#}");
    assert_eq!(decided["values"]["outlook"]["subject"], "ours", "the winner: {decided:#}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_edit_on_both_sides_writes_nothing() {
    let rehearsal = Rehearsal::start(Options { speed: 5.0, ..Options::default() }, "").await;
    let (event, id) = linked(&rehearsal, "Same").await;
    let person = rehearsal.person(0);
    person.update_in_outlook(&event, &json!({"subject": "Same, renamed"})).unwrap();
    person.update_in_salesforce(&id, &fields(json!({"Subject": "Same, renamed"}))).unwrap();
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 1));
    let story = rehearsal.story(&id).await;
    assert!(gives(&story, "same_change"), "{story:#}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_on_one_side_beats_an_edit_on_the_other_whose_values_stay_in_the_journal() {
    let rehearsal = Rehearsal::start(Options { speed: 5.0, ..Options::default() }, "").await;
    let (event, id) = linked(&rehearsal, "Gone").await;
    let person = rehearsal.person(0);
    person.update_in_salesforce(&id, &fields(json!({"Subject": "Gone, renamed"}))).unwrap();
    person.delete_in_outlook(&event).unwrap();
    rehearsal.until("it is gone from Salesforce", |r| r.salesforce().is_empty()).await;
    rehearsal.rest().await;
    assert!(rehearsal.outlook(0).is_empty() && rehearsal.salesforce().is_empty());
    let story = rehearsal.story(&id).await;
    let kept =
        story["lines"].as_array().unwrap().iter().any(|line| line["values"]["before"]["Subject"] == "Gone, renamed");
    assert!(kept, "{story:#}");
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_and_times_cross_once_and_survive_an_edit_on_the_other_side() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    let long = "long ".repeat(70);
    let subjects = [
        long.as_str(),
        "",
        "  outer  and   inner blanks  ",
        "quotes ' \" \\ and % _ {} <b>&amp;</b>",
        "\u{1F600} \u{65E5}\u{672C} e\u{301} \u{202E}rtl",
        "no\u{a0}break and\ttab",
    ];
    for (number, subject) in subjects.iter().enumerate() {
        let mut made = in_outlook(subject);
        made["location"]["displayName"] = json!(format!("{subject} {number}"));
        made["body"]["content"] = json!(format!("{subject}\n\n\tindented {number}\n"));
        // Seconds, no length, several days.
        let ends = ["2026-12-01T10:00:30", "2026-12-01T10:00:00", "2026-12-04T09:00:00"][number % 3];
        made["end"]["dateTime"] = json!(ends);
        person.create_in_outlook(&made).unwrap();
    }
    rehearsal.until("all crossed", |r| r.salesforce().len() == subjects.len()).await;
    rehearsal.rest().await;
    assert_eq!(
        rehearsal.written(),
        (0, subjects.len()),
        "nothing is written twice: {:#?}",
        rehearsal.writes(Cloud::Outlook)
    );
    rehearsal.assert_clean();
    for row in rehearsal.salesforce() {
        person.update_in_salesforce(&id_of(&row), &fields(json!({"ShowAs": "Free"}))).unwrap();
    }
    rehearsal.until("the choice crossed", |r| r.outlook(0).iter().all(|event| event["showAs"] == "free")).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (subjects.len(), subjects.len()));
    let kept: Vec<Value> = rehearsal.outlook(0).iter().map(|event| event["subject"].clone()).collect();
    for subject in subjects {
        assert!(kept.contains(&json!(subject.trim())), "{subject:?} in {kept:#?}");
    }
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_longer_than_salesforce_holds_is_cut_once_and_not_written_back() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let mut made = in_outlook("Minutes");
    made["body"]["content"] = json!("a line of the minutes\n".repeat(2_000));
    let event = id_of(&rehearsal.person(0).create_in_outlook(&made).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    let kept = rehearsal.salesforce()[0]["Description"].as_str().unwrap().chars().count();
    assert!((31_900..=32_000).contains(&kept), "{kept}");
    rehearsal.person(0).update_in_outlook(&event, &json!({"location": {"displayName": "Hall"}})).unwrap();
    rehearsal.until("the place crossed", |r| r.salesforce()[0]["Location"] == "Hall").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.written(), (0, 2));
    rehearsal.assert_clean();
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_that_salesforce_refuses_waits_for_a_person_and_crosses_once_it_was_mended() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    // An org may allow no event that is longer than a day.
    rehearsal.sandbox.world().faults.change(|switches| switches.salesforce_multiday = false);
    let ends = |at: &str| json!({"dateTime": format!("2026-12-{at}:00:00"), "timeZone": "UTC"});
    let mut made = in_outlook("Expedition");
    made["end"] = ends("05T11");
    let event = id_of(&person.create_in_outlook(&made).unwrap());
    rehearsal.rest().await;
    assert!(rehearsal.salesforce().is_empty());
    assert_eq!(rehearsal.status().await.dead_letters, 1);
    assert!(gives(&rehearsal.story(&event).await, "refused"));

    person.update_in_outlook(&event, &json!({"end": ends("01T11")})).unwrap();
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.status().await.dead_letters, 0, "nothing is left to do for a person");

    // The same for a meeting that is linked already.
    person.update_in_outlook(&event, &json!({"end": ends("05T11"), "subject": "Expedition, longer"})).unwrap();
    rehearsal.rest().await;
    assert_eq!(rehearsal.salesforce()[0]["Subject"], "Expedition");
    assert_eq!(rehearsal.status().await.dead_letters, 1);
    person.update_in_outlook(&event, &json!({"end": ends("01T12")})).unwrap();
    rehearsal.until("it crossed", |r| r.salesforce()[0]["Subject"] == "Expedition, longer").await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.salesforce()[0]["EndDateTime"], "2026-12-01T12:00:00.000+0000");
    assert_eq!(rehearsal.status().await.dead_letters, 0);
    assert_eq!(rehearsal.written(), (0, 2));
    rehearsal.assert_clean();
    rehearsal.end().await;
}

fn find(records: &[Value], field: &str, value: &str) -> Value {
    let found = records.iter().find(|record| record[field] == value);
    found.unwrap_or_else(|| panic!("{field} is {value} in {records:#?}")).clone()
}

fn starts(event: &Value) -> String {
    event["start"]["dateTime"].as_str().unwrap_or_default().chars().take(10).collect()
}

fn assert_days(event: &Value, first: &str, after: &str) {
    assert_eq!(event["isAllDay"], true);
    assert_eq!(event["start"]["dateTime"], format!("{first}T00:00:00.0000000"));
    assert_eq!(event["end"]["dateTime"], format!("{after}T00:00:00.0000000"));
}
