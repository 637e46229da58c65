//! One test for each known pitfall of the Event Hubs SDK; each is named after its number in the table of `docs/PROTOCOLS.md`.
//!
//! The hub is the sandbox's. Between it and the listener may stand a [`Relay`], which fails as networks and services do:
//! it falls silent at a chosen moment, or holds back the events of a link.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use calbridge_sandbox::event_hubs::DetachReason;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::tests::{events, notification, publish, read_until, start, until_read};
use super::*;
use crate::outlook::auth::HubCredential;
use crate::outlook::listen::hub_connection::classify;
use crate::outlook::testing::{LittleStore, Office, PATIENCE, Running};

/// Deadline of a call that is never answered here; a loaded machine answers any other call sooner.
const DEADLINE: Duration = Duration::from_secs(2);

/// What a relay does to the connections that it carries.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Once the client has sent these bytes, nothing passes in either direction any more.
    Silence(&'static [u8]),
    /// Frames to the client that hold these bytes do not pass.
    Swallow(&'static [u8]),
}

/// Stands between client and hub; the first connections that meet the fault suffer from it, later ones do not.
struct Relay {
    port: u16,
    /// Connections that still may suffer.
    left: Arc<AtomicUsize>,
    /// Raised to silence every connection of the moment.
    hush: watch::Sender<u64>,
}

impl Relay {
    async fn start(office: &Office, fault: Option<Fault>, times: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hub = office.sandbox.endpoints().event_hubs.amqp_port;
        let left = Arc::new(AtomicUsize::new(times));
        let hush = watch::Sender::new(0);
        let (suffering, hushed) = (Arc::clone(&left), hush.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", hub)).await.unwrap();
                tokio::spawn(carry(client, server, fault, Arc::clone(&suffering), hushed.subscribe()));
            }
        });
        Self { port, left, hush }
    }

    fn endpoint(&self) -> String {
        format!("amqp://localhost:{}", self.port)
    }

    fn met(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

/// Takes one from the connections that may suffer; false when there is none.
fn suffers(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    fault: Option<Fault>,
    left: Arc<AtomicUsize>,
    hush: watch::Receiver<u64>,
) {
    let silent = Arc::new(AtomicBool::new(false));
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let up = carry_up(client_reads, server_writes, fault, Arc::clone(&left), Arc::clone(&silent), hush);
    let down = carry_down(server_reads, client_writes, fault, left, silent);
    // Both ends are kept until the client goes, so that silence does not look like an end.
    tokio::join!(up, down);
}

async fn carry_up(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    fault: Option<Fault>,
    left: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
    mut hush: watch::Receiver<u64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    // The last bytes of what went before: what is looked for may come in two parts.
    let mut tail: Vec<u8> = Vec::new();
    let mut marked = false;
    loop {
        let read = tokio::select! {
            biased;
            Ok(()) = hush.changed() => { silent.store(true, Ordering::SeqCst); continue }
            read = from.read(&mut buffer) => read,
        };
        let Ok(length @ 1..) = read else { return };
        let bytes = &buffer[..length];
        tail.extend_from_slice(bytes);
        if let Some(Fault::Silence(mark)) = fault
            && !marked
            && (mark.is_empty() || tail.windows(mark.len()).any(|window| window == mark))
        {
            marked = true;
            if suffers(&left) {
                silent.store(true, Ordering::SeqCst);
            }
        }
        let keep = tail.len().saturating_sub(64);
        tail.drain(..keep);
        if !silent.load(Ordering::SeqCst) && to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn carry_down(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    fault: Option<Fault>,
    left: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
) {
    let mut swallows = None;
    let mut waiting: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        waiting.extend_from_slice(&buffer[..length]);
        while let Some(frame) = next_frame(&mut waiting) {
            let hit = |mark: &[u8]| frame.windows(mark.len()).any(|window| window == mark);
            let swallowed = match fault {
                Some(Fault::Swallow(mark)) if hit(mark) => *swallows.get_or_insert_with(|| suffers(&left)),
                _ => false,
            };
            if !swallowed && !silent.load(Ordering::SeqCst) && to.write_all(&frame).await.is_err() {
                return;
            }
        }
    }
}

/// Takes one frame, or a protocol header, from what has come; none while it is not whole.
fn next_frame(waiting: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head: [u8; 4] = waiting.get(..4)?.try_into().ok()?;
    let length = if &head == b"AMQP" { 8 } else { usize::try_from(u32::from_be_bytes(head)).ok()? };
    (waiting.len() >= length).then(|| waiting.drain(..length).collect())
}

/// Makes the office's listener go through a relay, with short deadlines.
fn through(office: &mut Office, relay: &Relay) {
    let settings = office.settings.hub.as_mut().unwrap();
    settings.custom_endpoint = Some(relay.endpoint());
    settings.call_timeout = DEADLINE;
    settings.idle_check = Duration::from_millis(300);
}

fn listen(office: &Office, store: &Arc<LittleStore>) -> Running {
    Running::start(office.restarted().hub(Arc::clone(store) as Arc<dyn Store>).unwrap())
}

/// Returns where the present reader of a partition began, as soon as it is another one than `before`.
async fn began_anew(office: &Office, partition: usize, before: i64) -> i64 {
    let handle = office.sandbox.hub_handle();
    let mut readers = handle.watch_readers();
    let wait = async {
        loop {
            let view = handle.readers().into_iter().rev().find(|reader| reader.partition == partition);
            if let Some(view) = view.filter(|view| view.from != before) {
                return view.from;
            }
            readers.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, wait).await.expect("the partition is read again")
}

#[tokio::test]
async fn pitfall_1_a_broken_reader_goes_on_behind_what_it_handed_over_and_neither_repeats_nor_skips() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = start(&office, &store);
    let (mut read, mut wanted) = (Vec::new(), Vec::new());
    let mut before = -1;
    let reasons =
        [DetachReason::Stolen, DetachReason::DetachForced, DetachReason::ServerBusy, DetachReason::Unauthorized];
    for round in 0..6 {
        let first = format!("e{round}-before");
        let (partition, sequence) = publish(&office, &first);
        read.extend(read_until(&mut running, &store, &first).await);
        let handle = office.sandbox.hub_handle();
        let broken = match round {
            0 => handle.cut_connections(),
            // `amqp:connection:forced`
            1 => handle.force_close_connections(),
            _ => handle.detach_readers(Some(partition), reasons[round - 2]),
        };
        assert!(broken > 0, "round {round}");
        // Sent while nobody reads: nothing else has run since the break.
        let gap = format!("e{round}-in-the-gap");
        publish(&office, &gap);
        read.extend(read_until(&mut running, &store, &gap).await);
        let from = began_anew(&office, partition, before).await;
        assert_eq!(from, sequence + 1, "round {round}: behind the last event, not where it first began");
        before = from;
        wanted.extend([first, gap]);
    }
    assert_eq!(read, wanted);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn pitfall_1_a_burst_that_is_cut_again_and_again_arrives_once_and_in_order() {
    let mut office = Office::open().await;
    office.settings.hub.as_mut().unwrap().batch_events = 100;
    let store = Arc::new(LittleStore::default());
    let wanted: Vec<String> = (0..600).map(|number| format!("e{number}")).collect();
    for event in &wanted {
        publish(&office, event);
    }
    let mut running = listen(&office, &store);
    let (mut read, mut cuts) = (Vec::new(), 0);
    while read.len() < wanted.len() {
        let batch = running.next().await;
        read.extend(events(&batch));
        store.accept_positions(batch);
        if cuts < 4 {
            cuts += usize::from(office.sandbox.hub_handle().cut_connections() > 0);
        }
    }
    assert_eq!(read, wanted);
    assert!(cuts > 1, "cut {cuts} times");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn pitfall_2_a_link_that_was_idle_for_longer_than_the_retry_budget_recovers_when_it_breaks() {
    let mut office = Office::open().await;
    let settings = office.settings.hub.as_mut().unwrap();
    settings.retry_budget = Duration::from_millis(100);
    settings.idle_check = Duration::from_millis(100);
    let store = Arc::new(LittleStore::default());
    let mut running = listen(&office, &store);
    until_read(&office).await;
    // The receive call that waits now has used up its budget several times over before the link breaks.
    assert!(timeout(Duration::from_millis(500), running.batches.recv()).await.is_err());
    assert!(office.sandbox.hub_handle().cut_connections() > 0);
    publish(&office, "after-the-break");
    assert_eq!(read_until(&mut running, &store, "after-the-break").await, ["after-the-break"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn pitfall_3_every_part_of_the_reader_can_run_in_a_task_of_its_own() {
    fn can_be_spawned<T: Send + 'static>(part: T) -> T {
        part
    }
    // The streams of the SDK's processor cannot; the listener uses plain receivers instead.
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let listener = Box::new(office.outlook.hub(Arc::clone(&store) as Arc<dyn Store>).unwrap());
    let (out, mut batches) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let running = tokio::spawn(can_be_spawned(listener.run(out, stop.clone())));
    publish(&office, "spawned");
    let batch = timeout(PATIENCE, batches.recv()).await.unwrap().unwrap();
    assert_eq!(events(&batch), ["spawned"]);
    stop.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn pitfall_4_a_partition_taken_by_an_owner_level_is_read_again_when_the_owner_leaves() {
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = start(&office, &store);
    let (partition, _) = publish(&office, "before");
    assert_eq!(read_until(&mut running, &store, "before").await, ["before"]);

    let mut settings = office.settings.hub.clone().unwrap();
    settings.connection_string =
        Some(SecretString::from(office.sandbox.endpoints().event_hubs.connection_string.clone()).into());
    let credential = Arc::new(HubCredential::new(Arc::clone(office.outlook.client.tokens())));
    let owner = open(&settings, &credential).await.unwrap();
    let options = OpenReceiverOptions {
        owner_level: Some(7),
        start_position: Some(StartPosition { location: StartLocation::Earliest, inclusive: true }),
        ..OpenReceiverOptions::default()
    };
    let receiver = owner.open_receiver_on_partition(partition.to_string(), Some(options)).await.unwrap();
    {
        let mut theirs = pin!(receiver.stream_events());
        timeout(PATIENCE, theirs.next()).await.unwrap().unwrap().unwrap();
        let held = |office: &Office| {
            let readers = office.sandbox.hub_handle().readers();
            let here: Vec<_> = readers.into_iter().filter(|reader| reader.partition == partition).collect();
            here.len() == 1 && here[0].epoch == Some(7)
        };
        let mut readers = office.sandbox.hub_handle().watch_readers();
        let taken = async {
            while !held(&office) {
                readers.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, taken).await.expect("ours is disconnected");
        publish(&office, "while-taken");
    }
    drop(receiver);
    close(owner).await;
    publish(&office, "afterwards");
    assert_eq!(read_until(&mut running, &store, "afterwards").await, ["while-taken", "afterwards"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn pitfall_5_a_stop_ends_every_reader_even_in_the_middle_of_a_call_that_hangs() {
    let mut office = Office::open().await;
    let relay = Relay::start(&office, Some(Fault::Silence(b"com.microsoft:partition")), 4).await;
    through(&mut office, &relay);
    office.settings.hub.as_mut().unwrap().call_timeout = Duration::from_hours(1);
    let store = Arc::new(LittleStore::default());
    let running = listen(&office, &store);
    let met = async {
        while !relay.met() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, met).await.expect("all partitions hang in a call");
    running.stop().await.unwrap();
    assert!(office.sandbox.hub_handle().readers().is_empty());
}

#[tokio::test]
async fn pitfall_6_opening_and_asking_never_wait_for_ever() {
    let mut office = Office::open().await;
    let marks: [(&str, &[u8]); 6] = [
        ("the connection is opened", b""),
        ("the link for tokens is attached", b"$cbs"),
        ("a token is put", b"put-token"),
        ("the link for questions is attached", b"$management"),
        ("the hub is asked", b"com.microsoft:eventhub"),
        ("the connection is closed", &[0x00, 0x53, 0x18]),
    ];
    let tokens = Arc::clone(office.outlook.client.tokens());
    for (number, (when, mark)) in marks.into_iter().enumerate() {
        let relay = Relay::start(&office, Some(Fault::Silence(mark)), 1).await;
        through(&mut office, &relay);
        let settings = office.settings.hub.clone().unwrap();
        let first = timeout(PATIENCE, partitions(&settings, &tokens)).await;
        let first = first.unwrap_or_else(|_| panic!("hangs when {when}"));
        assert!(relay.met(), "the relay never saw that {when}");
        if number + 1 < marks.len() {
            assert_eq!(first.expect_err(when).code, error::HUB_UNREACHABLE, "when {when}");
        } else {
            assert_eq!(first.expect(when).len(), 4);
        }
        let second = timeout(PATIENCE, partitions(&settings, &tokens)).await;
        assert_eq!(second.expect(when).expect(when).len(), 4, "afterwards, when {when}");
    }
}

#[tokio::test]
async fn pitfall_6_reading_never_waits_for_ever() {
    let marks = [
        Fault::Silence(b"com.microsoft:partition"),
        Fault::Silence(b"selector-filter"),
        // The link lives and hands out nothing while events wait behind it.
        Fault::Swallow(b"x-opt-sequence-number"),
    ];
    for fault in marks {
        let mut office = Office::open().await;
        let relay = Relay::start(&office, Some(fault), 1).await;
        through(&mut office, &relay);
        let store = Arc::new(LittleStore::default());
        // Every partition holds something, so whichever connection suffers has something to miss.
        for key in ["alpha", "beta", "tenant-1/user-7", "delta", "epsilon", "zeta", "eta", "theta"] {
            office.sandbox.hub().publish(notification(&office, "other"), Some(key));
        }
        publish(&office, "waiting");
        let mut running = listen(&office, &store);
        let read = read_until(&mut running, &store, "waiting");
        let read = timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("hangs with {fault:?}"));
        assert_eq!(read.iter().filter(|event| *event == "waiting").count(), 1, "{fault:?}");
        let met = async {
            while !relay.met() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("{fault:?} never struck"));
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn pitfall_6_a_connection_that_falls_silent_while_it_is_read_is_given_up() {
    let mut office = Office::open().await;
    let relay = Relay::start(&office, None, 0).await;
    through(&mut office, &relay);
    let store = Arc::new(LittleStore::default());
    let mut running = listen(&office, &store);
    publish(&office, "before");
    assert_eq!(read_until(&mut running, &store, "before").await, ["before"]);
    relay.hush.send_modify(|times| *times += 1);
    publish(&office, "after");
    assert_eq!(read_until(&mut running, &store, "after").await, ["after"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn pitfall_7_a_session_that_the_sdk_lost_is_a_broken_connection_and_not_a_missing_hub() {
    let lost = "amqp:not-found: Session is not found";
    assert_eq!(classify("receive", false, lost).code, error::HUB_UNREACHABLE);
    let missing = "amqp:not-found: The messaging entity 'sb://ns/hub' could not be found.";
    assert_eq!(classify("receive", false, missing).code, error::HUB_MISSING);
    assert_eq!(classify("receive", true, "amqp:link:stolen").code, error::HUB_STOLEN);
    // The SDK then closes its own connection; what follows is what follows any end of one.
    let office = Office::open().await;
    let store = Arc::new(LittleStore::default());
    let mut running = start(&office, &store);
    until_read(&office).await;
    assert!(office.sandbox.hub_handle().cut_connections() > 0);
    publish(&office, "after");
    assert_eq!(read_until(&mut running, &store, "after").await, ["after"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn pitfall_8_waiting_for_events_ends_no_stream_and_costs_no_connection() {
    let mut office = Office::open().await;
    office.settings.hub.as_mut().unwrap().idle_check = Duration::from_millis(50);
    let store = Arc::new(LittleStore::default());
    let mut running = listen(&office, &store);
    until_read(&office).await;
    let mut connections = office.sandbox.hub_handle().watch_connections();
    let settled = connections.wait_for(|connections| *connections == 4);
    timeout(PATIENCE, settled).await.unwrap().unwrap();
    connections.mark_unchanged();
    assert!(timeout(Duration::from_millis(600), running.batches.recv()).await.is_err());
    publish(&office, "late");
    assert_eq!(read_until(&mut running, &store, "late").await, ["late"]);
    assert!(!connections.has_changed().unwrap(), "a connection was made or given up while it was idle");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn pitfall_9_two_engines_on_one_hub_both_read_everything_and_take_nothing_from_each_other() {
    let office = Office::open().await;
    let stores = [Arc::new(LittleStore::default()), Arc::new(LittleStore::default())];
    let mut engines = stores.each_ref().map(|store| start(&office, store));
    let mut readers = office.sandbox.hub_handle().watch_readers();
    timeout(PATIENCE, readers.wait_for(|readers| *readers == 8)).await.unwrap().unwrap();
    readers.mark_unchanged();
    for round in 0..3 {
        let event = format!("e{round}");
        publish(&office, &event);
        for (engine, store) in engines.iter_mut().zip(&stores) {
            assert_eq!(read_until(engine, store, &event).await, [event.as_str()]);
        }
    }
    assert!(!readers.has_changed().unwrap(), "a reader was displaced");
    for engine in engines {
        engine.stop().await.unwrap();
    }
}

#[test]
fn pitfall_10_nothing_is_ever_sent_to_a_hub() {
    // A producer takes `Modified` and `Released` for success: whoever adds one must look at outcomes first.
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("pitfalls_tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                if ["ProducerClient", "send_batch", "send_event"].iter().any(|name| text.contains(name)) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn pitfall_11_the_feature_that_logs_payloads_is_off() {
    // With it, azure_core prints what it otherwise keeps back; a value of its `SafeDebug` types shows which it is.
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let lines = manifest.lines().filter(|line| line.starts_with("azure_"));
    for line in lines {
        assert!(!line.contains("\"debug\""), "{line}");
    }
    let event = azure_messaging_eventhubs::models::EventData::builder().with_body(b"zyxcanary".to_vec()).build();
    let printed = format!("{event:?}");
    assert!(!printed.contains("zyxcanary"), "{printed}");
    let bytes = format!("{:?}", b"zyxcanary".to_vec());
    assert!(!printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");
}
