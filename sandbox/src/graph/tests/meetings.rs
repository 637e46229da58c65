//! Meetings between mailboxes, and the mails that Exchange would send.

use super::*;

fn mails(bench: &Bench) -> u64 {
    bench.world.meters.read().mails.get(CLIENT).copied().unwrap_or(0)
}

#[tokio::test]
async fn every_attendee_gets_a_copy_of_their_own() {
    let bench = Bench::new(Profile::Quiet);
    let stamp = json!([{"id": PROPERTY, "value": "link-1"}]);
    let made = bench
        .event(json!({"attendees": invite(&[BEN, CARL, "x@other.example"]), "singleValueExtendedProperties": stamp}))
        .await;
    assert_eq!(mails(&bench), 3);
    for mailbox in [BEN, CARL] {
        let copies = bench.list(mailbox).await;
        let copy = &copies[0];
        assert_eq!((copies.len(), &copy["iCalUId"]), (1, &made["iCalUId"]));
        assert_ne!(copy["id"], made["id"]);
        assert_eq!(
            (&copy["isOrganizer"], &copy["responseStatus"]["response"]),
            (&json!(false), &json!("notResponded"))
        );
        assert_eq!(copy["organizer"]["emailAddress"]["address"], ANNA);
    }
    let tagged = bench.tenant.events(BEN);
    assert_eq!(tagged[0]["singleValueExtendedProperties"], json!([]));
}

#[tokio::test]
async fn organiser_changes_travel_and_only_mailing_ones_are_mailed() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({"attendees": invite(&[BEN, CARL])})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    let key = bench.list(BEN).await[0]["changeKey"].clone();
    bench
        .patch(
            &path,
            json!({"reminderMinutesBeforeStart": 5, "showAs": "free", "categories": ["Blue"],
        "singleValueExtendedProperties": [{"id": PROPERTY, "value": "x"}]}),
        )
        .await;
    assert_eq!((mails(&bench), &bench.list(BEN).await[0]["changeKey"]), (2, &key));
    bench.patch(&path, json!({"subject": "Moved", "location": {"displayName": "Room 1"}})).await;
    assert_eq!(mails(&bench), 4);
    let copy = &bench.list(BEN).await[0];
    assert_eq!((&copy["subject"], &copy["location"]["displayName"]), (&json!("Moved"), &json!("Room 1")));
    // Only the changed list is mailed to whom it concerns.
    bench.patch(&path, json!({"attendees": invite(&[CARL])})).await;
    assert_eq!((mails(&bench), bench.list(BEN).await.len(), bench.list(CARL).await.len()), (5, 0, 1));
    let mut by_transport = bench.world.history.since(0).into_iter().filter(|effect| !effect.actor.is_app());
    assert!(by_transport.any(|effect| effect.kind == crate::history::EffectKind::Delete));
}

#[tokio::test]
async fn deleting_or_cancelling_takes_the_copies_away() {
    let bench = Bench::new(Profile::Quiet);
    for cancels in [false, true] {
        let made = bench.event(json!({"attendees": invite(&[BEN])})).await;
        let path = format!("/users/{ANNA}/events/{}", id(&made));
        let reply = if cancels {
            bench.post(&format!("{path}/cancel"), json!({"Comment": "sorry"})).await
        } else {
            bench.call("DELETE", &path, &[], Value::Null).await
        };
        assert_eq!(reply.status, if cancels { 202 } else { 204 });
        assert_eq!((bench.list(ANNA).await.len(), bench.list(BEN).await.len()), (0, 0));
    }
    assert_eq!(mails(&bench), 4);
}

#[tokio::test]
async fn an_attendee_deletes_only_their_own_copy() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({"attendees": invite(&[BEN, CARL])})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    let copy = id(&bench.list(BEN).await[0]);
    let refused = bench.post(&format!("/users/{BEN}/events/{copy}/cancel"), json!({})).await;
    assert_eq!(refused.status, 400);
    assert_eq!(bench.call("DELETE", &format!("/users/{BEN}/events/{copy}"), &[], Value::Null).await.status, 204);
    assert_eq!(bench.list(CARL).await.len(), 1);
    let seen = bench.get(&path).await.body;
    assert_eq!(seen["attendees"][0]["status"]["response"], "declined");
    // A new subject does not bring the copy back, a new time does.
    bench.patch(&path, json!({"subject": "Other"})).await;
    assert_eq!(bench.list(BEN).await.len(), 0);
    bench.patch(&path, json!({"end": {"dateTime": "2026-11-23T10:30:00", "timeZone": "UTC"}})).await;
    assert_eq!(bench.list(BEN).await.len(), 1);
}

#[tokio::test]
async fn answers_reach_the_organiser() {
    let bench = Bench::new(Profile::Quiet);
    let made = bench.event(json!({"attendees": invite(&[BEN, CARL])})).await;
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    for (mailbox, call) in [(BEN, "accept"), (CARL, "decline")] {
        let copy = id(&bench.list(mailbox).await[0]);
        let reply = bench.post(&format!("/users/{mailbox}/events/{copy}/{call}"), json!({"sendResponse": true})).await;
        assert_eq!(reply.status, 202);
    }
    let seen = bench.get(&path).await.body;
    let answers: Vec<_> =
        seen["attendees"].as_array().unwrap().iter().map(|a| a["status"]["response"].as_str().unwrap()).collect();
    assert_eq!(answers, ["accepted", "declined"]);
    assert_eq!(bench.list(BEN).await[0]["responseStatus"]["response"], "accepted");
    assert_eq!(bench.list(CARL).await.len(), 0);
    assert_eq!(bench.post(&format!("{path}/accept"), json!({})).await.status, 400);
}

#[tokio::test]
async fn an_imported_meeting_keeps_its_organiser_and_mails_nobody() {
    let bench = Bench::new(Profile::Quiet);
    let mut body = meeting("2026-11-23T09:00:00", "2026-11-23T10:00:00");
    body["iCalUId"] = json!("uid-from-file@example.org");
    body["organizer"] = json!({"emailAddress": {"address": "x@other.example", "name": "X"}});
    body["attendees"] = invite(&[ANNA, BEN]);
    let actor = crate::actor::Actor::Automation("import".to_owned());
    let made = bench.tenant.import_event(&actor, ANNA, &body).unwrap();
    assert_eq!((&made["iCalUId"], &made["isOrganizer"]), (&json!("uid-from-file@example.org"), &json!(false)));
    assert!(bench.list(BEN).await.is_empty() && bench.world.meters.read().mails.is_empty());
    let path = format!("/users/{ANNA}/events/{}", id(&made));
    assert_eq!(bench.post(&format!("{path}/tentativelyAccept"), Value::Null).await.status, 202);
    assert_eq!(bench.get(&path).await.body["showAs"], "tentative");
}
