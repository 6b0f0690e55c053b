//! The operator is stopped dead before and after every write of a create and of a delete, begun anew, and has to end where
//! an undisturbed run ends. Real API server, real PostgreSQL 17; what is stopped is the operator's whole runtime.

// A helper that panics fails the test, which is what a failure here means.
#![allow(clippy::unwrap_used)]

mod domains;
mod operator;
mod own_workers;
mod restores;
#[path = "../s3/mod.rs"]
mod s3;
mod subscriptions;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use maintenance_os::api::tenant::DeletionPolicy;
use maintenance_os::apply::gate::{Gate, Side};
use tokio::sync::Notify;

use operator::Operator;
use world::World;

/// Where a crash happens: the n-th write after the test armed the gate, and on which side of it.
#[derive(Clone, Copy, Debug)]
struct Point {
    number: usize,
    side: Side,
}

/// A gate that counts writes, notes what they were, and at `point` lets nothing through any more.
struct Crash {
    gate: Gate,
    armed: Arc<AtomicUsize>,
    reached: Arc<Notify>,
    writes: Arc<Mutex<Vec<String>>>,
}

const DISARMED: usize = usize::MAX;

impl Crash {
    fn at(point: Option<Point>) -> Self {
        let armed = Arc::new(AtomicUsize::new(DISARMED));
        let reached = Arc::new(Notify::new());
        let writes = Arc::new(Mutex::new(Vec::new()));
        let (counter, signal, log) = (Arc::clone(&armed), Arc::clone(&reached), Arc::clone(&writes));
        let gate = Gate::watched(move |side, what| {
            let number = match (side, counter.load(Ordering::SeqCst)) {
                (_, DISARMED) => None,
                (Side::Before, _) => Some(counter.fetch_add(1, Ordering::SeqCst) + 1),
                (Side::After, number) => Some(number),
            };
            if let (Side::Before, Some(_)) = (side, number) {
                log.lock().unwrap().push(what.to_owned());
            }
            let stop =
                point.is_some_and(|point| point.side == side && number.is_some_and(|number| number >= point.number));
            let signal = Arc::clone(&signal);
            Box::pin(async move {
                if stop {
                    signal.notify_one();
                    std::future::pending::<()>().await;
                }
            })
        });
        Self { gate, armed, reached, writes }
    }

    fn arm(&self) {
        self.armed.store(0, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.writes.lock().unwrap().len()
    }
}

/// Runs `change` under an operator that stops at `point`, then under one that does not, until `settled`. Returns how many
/// writes the first one began.
async fn run(
    world: &World,
    point: Option<Point>,
    change: impl AsyncFn(&World),
    settled: impl AsyncFn(&World),
) -> usize {
    let crash = Crash::at(point);
    let operator = Operator::start(world, crash.gate.clone()).await;
    world.wait_for_server().await;
    crash.arm();
    change(world).await;
    if point.is_none() {
        settled(world).await;
        world.wait_for_server().await;
        let count = crash.count();
        operator.kill();
        return count;
    }
    // A point beyond the last write is never reached: then the run was an undisturbed one.
    tokio::select! {
        () = crash.reached.notified() => {}
        () = settled(world) => {}
    }
    let count = crash.count();
    operator.kill();
    let operator = Operator::start(world, Gate::default()).await;
    settled(world).await;
    world.wait_for_server().await;
    operator.kill();
    count
}

fn points(count: usize) -> impl Iterator<Item = Point> {
    (1..=count).flat_map(|number| [Side::Before, Side::After].map(|side| Point { number, side }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_stopped_before_or_after_any_write_ends_where_an_undisturbed_one_does() {
    let world = World::new("create").await;
    let create = async |world: &World| world.create(None).await;
    let ready = async |world: &World| world.wait_until_ready().await;
    let count = run(&world, None, create, ready).await;
    let undisturbed = world.digest().await;
    world.remove().await;
    assert!(count >= 7, "a create is at least seven writes, this one was {count}");
    for point in points(count) {
        run(&world, Some(point), create, ready).await;
        assert_eq!(world.digest().await, undisturbed, "stopped at {point:?}");
        world.assert_login_works().await;
        world.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_that_is_stopped_before_or_after_any_write_keeps_the_data_and_gives_it_back() {
    let world = World::new("retain").await;
    deletes(&world, DeletionPolicy::Retain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destructive_delete_that_is_stopped_before_or_after_any_write_ends_in_quarantine_and_can_be_undone() {
    let world = World::new("delete").await;
    deletes(&world, DeletionPolicy::Delete).await;
}

async fn deletes(world: &World, policy: DeletionPolicy) {
    let delete = async |world: &World| world.delete(policy).await;
    let gone = async |world: &World| world.wait_until_gone().await;
    world.create_undisturbed().await;
    let count = run(world, None, delete, gone).await;
    let undisturbed = world.digest().await;
    assert!(count >= 5, "a delete is at least five writes, this one was {count}");
    world.remove().await;
    for point in points(count) {
        let uuid = world.create_undisturbed().await;
        let before = world.digest().await;
        run(world, Some(point), delete, gone).await;
        assert_eq!(world.digest().await, undisturbed, "stopped at {point:?}");
        let operator = Operator::start(world, Gate::default()).await;
        world.create(Some(uuid)).await;
        world.wait_until_ready().await;
        assert_eq!(world.digest().await, before, "adopted after a delete that was stopped at {point:?}");
        world.assert_login_works().await;
        operator.kill();
        world.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_objects_for_one_server_are_a_conflict_and_the_first_goes_on() {
    let world = World::new("twice").await;
    let before = world.term().await;
    let operator = Operator::start(&world, Gate::default()).await;
    // What the object says of itself may still be of an operator before this one.
    world.wait_for_term_after(before).await;
    world.wait_for_server().await;
    let term = world.term().await;
    world.add_another_object_for_the_server().await;
    world.wait_for_conflict().await;
    assert_eq!(world.term().await, term, "the server was taken over for the second object");
    operator.kill();
    // Whichever of the two an operator that begins looks at first.
    let operator = Operator::start(&world, Gate::default()).await;
    world.create(None).await;
    world.wait_until_ready().await;
    world.wait_for_conflict().await;
    assert_eq!(world.term().await, term + 1, "the server was taken over once");
    operator.kill();
    world.remove().await;
    world.remove_other_object().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_of_the_operators_own_passwords_that_is_stopped_before_or_after_any_write_is_completed() {
    let world = World::new("rotate").await;
    let round = std::cell::Cell::new(0);
    let ask = async |world: &World| {
        round.set(round.get() + 1);
        world.ask_to_rotate(round.get()).await;
    };
    let done = async |world: &World| world.wait_until_rotated(round.get()).await;
    // What the object says of itself may still be of an operator before this one: only what is asked for now tells.
    run(&world, None, ask, done).await;
    let mut before = world.operators_passwords().await;
    let count = run(&world, None, ask, done).await;
    assert!(count >= 7, "certificate, passwords, roles, and four for the provisioner, this one was {count}");
    before = world.assert_all_are_new(&before).await;
    for point in points(count) {
        run(&world, Some(point), ask, done).await;
        before = world.assert_all_are_new(&before).await;
    }
    world.give_the_provisioner_its_password_back().await;
}
