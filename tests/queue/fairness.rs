//! Whose turn it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use maintenance_os::api::routing::{Queue, RoutingEntry};
use tokio::task::JoinSet;

use crate::house::{House, Nap, Note, Trace, settings};
use crate::redis::{Own, entry};

fn tenant(name: &str, weight: i32, max_processes: i32) -> RoutingEntry {
    let entry = entry();
    let queue = Queue { weight, max_processes, ..entry.queue.clone() };
    RoutingEntry { name: name.to_owned(), queue, ..entry }
}

async fn push(house: &House, tenant: &RoutingEntry, count: usize) {
    let context = house.context(tenant).await;
    let mut pushes = JoinSet::new();
    for _ in 0..count {
        let queue = context.queue().clone();
        pushes.spawn(async move { queue.push(&Note::of("job")).await.unwrap() });
        if pushes.len() == 50 {
            pushes.join_next().await;
        }
    }
    pushes.join_all().await;
}

#[tokio::test]
async fn a_tenant_with_thousands_of_jobs_does_not_delay_anothers_single_one() {
    const QUIET: usize = 200;
    let server = Own::start().await;
    let busy = tenant("busy", 1, 10);
    let quiet: Vec<_> = (0..QUIET).map(|number| tenant(&format!("quiet-{number}"), 1, 10)).collect();
    let all: Vec<_> = std::iter::once(busy.clone()).chain(quiet.clone()).collect();
    let house = House::new(&server.settings, &all).await;
    push(&house, &busy, 2000).await;
    for tenant in &quiet {
        push(&house, tenant, 1).await;
    }
    let trace = Trace::default();
    let worker = house.worker(&trace, settings(4));
    trace.has(2000 + QUIET).await;
    let lines = trace.lines();
    let last = lines.iter().rposition(|line| line.contains("quiet")).unwrap() + 1;
    // Ideal round robin serves each tenant once before anybody a second time.
    assert!(last * 10 <= (QUIET + 1) * 11, "the last quiet tenant was served as number {last}");
    assert_eq!(lines.iter().filter(|line| line.contains("quiet")).count(), QUIET);
    worker.stop().await;
}

#[tokio::test]
async fn a_tenant_of_three_times_the_weight_gets_three_times_the_share() {
    let server = Own::start().await;
    let (light, heavy) = (tenant("light", 1, 10), tenant("heavy", 3, 10));
    let house = House::new(&server.settings, &[light.clone(), heavy.clone()]).await;
    push(&house, &light, 600).await;
    push(&house, &heavy, 600).await;
    let trace = Trace::default();
    let worker = house.worker(&trace, settings(2));
    trace.has(400).await;
    let heavy = trace.lines()[..400].iter().filter(|line| line.contains("heavy")).count();
    assert!((285..=315).contains(&heavy), "{heavy} of 400, where 300 are due");
    worker.stop().await;
}

#[tokio::test]
async fn no_more_of_a_tenants_jobs_run_at_once_than_its_plan_says_over_all_workers() {
    let server = Own::start().await;
    let (two, other) = (tenant("two", 1, 2), tenant("other", 1, 10));
    let house = House::new(&server.settings, &[two.clone(), other.clone()]).await;
    let context = house.context(&two).await;
    for number in 0..8 {
        let nap = Nap { text: number.to_string(), milliseconds: 150 };
        context.queue().push(&nap).await.unwrap();
    }
    let trace = Trace::default();
    let workers = [house.worker(&trace, settings(4)), house.worker(&trace, settings(4))];
    trace.has(2).await;
    push(&house, &other, 1).await;
    trace.has(17).await;
    let (mut now, mut most) = (0_i32, 0);
    let lines = trace.lines();
    for line in &lines {
        now += i32::from(line.starts_with("begin")) - i32::from(line.starts_with("end"));
        most = most.max(now);
    }
    assert_eq!(most, 2, "{lines:?}");
    let note = lines.iter().position(|line| line.starts_with("job")).unwrap();
    assert!(note < 8, "another tenant does not wait for it: {lines:?}");
    for worker in workers {
        worker.stop().await;
    }
}

/// What was sent so far, without what scripts call and what is asked here.
async fn commands(raw: &mut (dyn redis::aio::ConnectionLike + Send)) -> BTreeMap<String, u64> {
    const SENT: [&str; 5] = ["evalsha", "eval", "script|load", "blpop", "ping"];
    let info: String = crate::redis::ask(raw, &["INFO", "commandstats"]).await;
    let lines = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    let sent = lines.filter(|(command, _)| SENT.contains(command));
    sent.map(|(command, rest)| (command.to_owned(), rest.split(',').next().unwrap().parse().unwrap())).collect()
}

#[tokio::test]
async fn workers_without_work_leave_redis_alone() {
    let server = Own::start().await;
    let tenants: Vec<_> = (0..1000).map(|number| tenant(&format!("idle-{number}"), 1, 10)).collect();
    let house = House::new(&server.settings, &tenants).await;
    let trace = Trace::default();
    let worker = house.worker(&trace, settings(10));
    push(&house, &tenants[0], 1).await;
    trace.has(1).await;
    let mut raw = crate::redis::raw(&server.settings, 0).await;
    // The first sweep looks at every queue, once in ten minutes; how long that takes is the machine's.
    let mut before = commands(&mut *raw).await;
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = commands(&mut *raw).await;
        if now == before {
            break;
        }
        assert!(begun.elapsed() < crate::redis::DEADLINE, "the worker is not at rest: {before:?}, then {now:?}");
        before = now;
    }
    let wait = Duration::from_secs(12);
    tokio::time::sleep(wait).await;
    let after = commands(&mut *raw).await;
    let during = after.values().sum::<u64>() - before.values().sum::<u64>();
    assert!(during < wait.as_secs(), "{during} commands in {wait:?}: {before:?}, then {after:?}");
    worker.stop().await;
}
