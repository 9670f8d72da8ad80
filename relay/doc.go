// Package relay keeps the newest unread count of each mailbox and sees that
// every subscribed device shows it.
//
// An event enters through Stream.Submit, becomes the newest of its mailbox, the
// desired count of each of the mailbox's devices, and leaves through the queue of its
// app (package dispatch), an apns.Source, when a connection to APNs has room. The
// answers come back the same way and settle the event; the stream's reader learns of
// it from Stream.OnSettled and TakeSettled, as package ingest does, or waits in Next, as
// Publish does.
//
//	Submit      -> shard/mailbox -> device -> dispatch.Queue -> apns.Pool
//	TakeSettled <- stream        <- shard  <- device         <- Done
//
// Nothing is queued but keys: a mailbox holds one event, a device one count, a queue
// each device once for each of its organizations. Memory is bounded by the number of mailboxes
// and devices, never by the rate of events.
//
// A device is in one place at a time, which keeps two pushes to it from being in
// flight at once:
//
//	idle       nothing is wanted, or the registry is asked first
//	queued     in its app's queue; start takes it from there
//	in flight  a connection has the push; answer ends that
//	waiting    for a time: a retry, a pause, a probe in quarantine, a shared device's
//	           window. endWait ends that; so do a registration and what the registry says
//
//	idle <--> queued ---> in flight ---> idle      accepted, refused, nothing wanted
//	  |         ^  ^          |
//	  |         v  +----------+                    the push is sent again
//	  +---> waiting <---------+                    5xx, 429
//
// At start the relay reads every subscription into memory, in the background, unless
// there is room for few of them (warmUp); then a mailbox is read with its first event.
// A mailbox with which nothing happens is compacted: encoded in some eighty
// bytes, in one piece of memory with the others of its shard. The next event
// activates it.
//
// # Which event is the newest
//
// The events of one agent id are in the order in which they come: package ingest
// lets one stream of an agent be active at a time, and none of an older stream's
// events follows a newer one's. Versions order nothing there, so a mailbox whose
// index was rebuilt is right with its next event.
//
// Between agent ids a greater version of the same epoch is newer. Where one of
// the two has none, or epochs differ, or versions are equal, the later observation
// is newer. An event orders others for ten minutes; then arrival counts. An older
// event ends as stale, unless it says what the newest does, in the same version. See
// order.
//
// # Several relays
//
// Any number of relays may serve the same mailboxes; Config.MaxInFlight says so.
// A device must not go back to an older count that one relay pushes after a newer
// one of another relay. These rules see to it:
//
//  1. An agent id has one active stream. The newest process is active, and of its
//     streams the one with the highest number. Relays tell each other of streams
//     that become active and that close (relay/ingest, agents). A relay that hears
//     of a newer active stream ends its older one, or has it stand by where nothing
//     is pending on it. A relay that hears of an older active stream speaks up.
//  2. Where a relay drains, the agent opens its next stream elsewhere and holds a
//     mailbox's newer counts back while an older one is unsettled on the stream
//     that it leaves.
//  3. A stream that closes takes its pending events along. The relay cancels them
//     from the devices wherever they wait: for the window, a pause, a 5xx, room at
//     APNs, a connection. A push that was lost is not sent again. Only what is at
//     the socket goes on.
//  4. A relay that hears nothing finds a dead connection after 20 seconds of silence.
//  5. A relay whose process was stopped for more than ten seconds ends all streams
//     before it hands out a push. A push carries its deadline, and package apns looks
//     at it last thing before the socket, by a clock that goes on while the process
//     is stopped and, on Linux, while the machine sleeps.
//  6. What is at the socket is answered or given up in 30 seconds (package apns), and
//     what the system has not sent by then it forgets.
//  7. So MaxInFlight, one minute, after a stream's end nothing older than the end
//     comes any more. Then the agent sends the newest counts once more of those
//     mailboxes that were in flight on the stream. A process that has just started
//     or taken over does not know what another one had in flight: it sends once more
//     everything that it sent in its first minute. The relay pushes these counts, even
//     if it has pushed the same before: it takes for shown only what APNs accepted
//     when the stream had been active for MaxInFlight. A relay that is alone does so
//     in its own first minute only (Config.Alone): what the system of a process that
//     was killed had taken may follow what the next process pushes.
//  8. Relays don't hear of a device that comes to a mailbox at the same moment. One
//     that has not may push it the count of the mailbox that it left, or may settle
//     the count that the agent sends for it without pushing it there. So the agent,
//     when it is told that the device has come, sends the mailbox's newest count once
//     more after MaxInFlight. The relay pushes it then: it takes for shown only what
//     APNs accepted when the device had been registered for MaxInFlight.
//
// Rules 1 to 6 leave a wrong badge a chance of milliseconds, and rules 7 and 8 put it
// right after a minute.
//
// What remains:
//
//   - A virtual machine that is paused together with all its clocks does not know
//     of it. What waited then, one push a device at most, goes out when the machine
//     goes on. The badge stays wrong until the mailbox's next event.
//   - A process that is stopped between the look at the deadline and the system call
//     behind it, some hundred nanoseconds, sends what it had in hand. Likewise bytes
//     that the system had taken and not sent when the machine was suspended.
//   - A proxy that answers pings in the name of an agent that is gone defeats rule 4.
//     Rule 1 still holds while relays hear each other.
//   - Relays that do not hear each other have two processes of one agent active at
//     once: 15 seconds after the last word the one that stands by takes over. Each
//     sends what it counts, so the badge is right when both have counted. When the
//     relays hear each other again the older process stands by within five seconds.
//   - A second process of an agent that ends while its relay hears no other one has
//     perhaps an older count on its way to APNs then. The first process, active at
//     another relay all the time, is not told of it, and nobody sends once more: the
//     badge stays wrong until the mailbox's next event.
//   - A relay that has not heard of an agent waits 250 ms for another one to speak up.
//     A database that takes longer to pass a word on lets an older process in until
//     the word arrives.
//   - A relay that reads the registry's changes more than half of MaxInFlight late may
//     still do what rule 8 describes after the agent has sent the count once more. The
//     badge stays wrong until the mailbox's next event.
//   - Agents with different ids that serve one mailbox at two relays are ordered by
//     what they send last: what a relay remembers of order it does not tell others.
//   - A count that Publish has given out pushes before its deadline can follow a newer
//     one of another relay by 30 seconds, and no relay sends that once more: rules 7
//     and 8 are the caller's to keep.
//
// # Shared devices
//
// A device of an app that is on several mailboxes, of one organization or of
// several, is shared and shows the sum of their counts. A device on one mailbox
// takes no part in what follows.
//
//	Submit      -> shard/mailbox -> device.touch -> exchanger -> SharedRegistry.Exchange
//	TakeSettled <- stream <- shard <- device.applyShared <- exchanger <-+
//	                                   device -> dispatch.Queue -> apns.Pool -> Done -> device.touch
//
// The registry has what all relays know of a shared device (SharedDevice): its
// mailboxes with their newest received counts, its parts; a sequence, which grows
// with each change of the sum; the sequence that APNs accepted last; and who pushes.
// One goroutine (exchanger) brings what this relay has, in batches, and takes
// what is there; SharedDevice.Merge decides, for every kind of registry.
//
//	shared_device.go            what all relays agree on, and how an exchange changes it
//	shared_reconcile.go         how its parts follow the subscriptions
//	shared_one_organization.go  whose counts it shows where the app shows no sum across organizations
//	shared_part.go              the states of a part
//	shared_wait.go              what waits, and until when
//	shared_again.go             when the sum is pushed once more though no count has changed
//	shared_clock.go             the clock that orders counts of different relays
//	shared_exchange.go          the exchanger, and the registry as it sees it
//	shared_schedule.go          when a device is exchanged
//	shared_update.go            what an exchange brings
//	shared_result.go            what it says, and what becomes of the counts that were brought
//	shared_changes.go           what this relay hears of otherwise
//	shared_local.go             what this relay has of a shared device, and whose events wait
//	shared_push.go              the push of a sum, and its answer
//	stall.go                    when it leaves the push to another relay
//
// The rules, with the functions that keep them:
//
//  1. A count is stored before the push (device.gather, SharedDevice.store). Counts of
//     different relays are ordered by when they were received, on the database's clock as
//     the relay knows it, which is never ahead (sharedClock): a write that was long on its
//     way does not win.
//  2. The sum is of the counts that are stored (SharedDevice.Sum).
//  3. A mailbox that nobody has reported holds its own organization's newer counts back for
//     a minute after it has come, and no other's (Part.Awaited, SharedDevice.incomplete).
//     They wait a minute at most, however many mailboxes come meanwhile (waitingSince).
//  4. While newer counts wait, the sum goes on with those that it had before (Part.wait,
//     includePending), so that no push on behalf of others delivers what waits.
//  5. An organization that comes from one mailbox to several begins as if the device became
//     shared then, whoever else is on it (beginAnew): of what is stored it is told nothing
//     before a relay that remembers it brings it once more.
//  6. Counts of one organization that change in one exchange, and their sum does not, are not
//     pushed again (shownSince, sumsStay). Those of two organizations are: how an event ends
//     tells nothing of another's.
//  7. Where a part leaves, the sum falls at once (reconcile). Where another one of its
//     organization has come with it, it falls after two seconds, so that the device does not
//     show for a moment that it is on neither (noteFall, SharedDevice.Ready). That one move
//     may delay the fall of another organization's part by as much.
//  8. When a device becomes shared, each relay that remembers a count of its mailboxes stores
//     it (DevicesShared, rememberedCount). Its agent is not asked.
//  9. One relay pushes to a device: the first to exchange it while none does, whether it has
//     an agent of the mailboxes or not (electPusher). It may push for a sixth of MaxInFlight
//     after an exchange, and after a longer silence asks who does before it sends what waited
//     (exchanger.mayPush).
//  10. When the pusher has not been heard of for MaxInFlight, another relay takes its place
//     (takeDue, electPusher). It pushes the sum even if that was pushed, because what the
//     other had in flight is not known (planPushAgain). A relay that ends with no push of a
//     sum in flight says so, and is followed at once, without that (exchanger.leave); one that
//     was silent for an hour counts as such.
//  11. When a device becomes shared, a relay that has not heard of it may have one more push
//     in flight: the sum is pushed once more after MaxInFlight (planPushAgain).
//  12. An event settles when the accepted sequence holds its count (settleAccepted): unchanged
//     if this relay knows that APNs accepted the mailbox's same count before
//     (repeatsAccepted), or else delivered (endAccepted), whether that took a push or not.
//     It ends as it would for a device on one mailbox, whatever the other parts do, come or
//     leave (followParts).
//  13. A refusal of the device is judged for those organizations whose events were in the push,
//     and for the others with their own next event (settleRefused).
//  14. A push that APNs accepts proves for all of them that the device is there: what is
//     remembered of refusals is forgotten (acceptedShared), whosever count it was for,
//     because a badge without the others' counts would be wrong. So an organization whose
//     device was held may see by its next event that another one has it too.
//  15. Subscriptions that end and organizations that are disabled or removed change the
//     sequence in their own transaction (changeSums of package registry), so that the sum
//     falls whoever has died since. Where all of a device's organizations are disabled it
//     keeps what it shows, as a device on one mailbox does (updateSummed).
//  16. Each relay asks once a second what is due, and when it gets a hint (exchanger.run,
//     SumsChanged).
//  17. An event of one organization can wait for another's push in flight, for its pause if
//     APNs asked for one, and for the device's coalescing window. It does not wait for
//     another's turns: a device waits for the registry (touch) and for a connection (enqueue)
//     in those of all organizations whose counts it lacks, and the first takes it. Where the
//     agent is at another relay than the one that pushes, the look at what is due comes on
//     top, which names 2,048 devices at a time; 256 go in an exchange.
//  18. With sum_across_organizations off for an app, a device is the organization's that
//     registered it first, as long as that has a subscription and is enabled
//     (ofOneOrganization). Where it is disabled the next one has the device, and keeps it. The
//     others' counts are stored and not in the sum; their events end as no_subscription
//     (followParts).
//  19. While the registry is away shared devices wait, and all others go on (exchanger.run).
//  20. A relay from which nothing of an app reaches APNs, because APNs refuses the app's key
//     there or has answered nothing while devices waited for ten seconds, leaves the app's
//     devices to whoever can push (updateStalls, and gather, which yields). It tries with one
//     device at a time (stall.try), and takes part again when APNs has answered.
//
// A badge takes two exchanges: its count, and APNs' acceptance. That is 0.3 ms of the
// database's CPU where 16 devices go together and 0.09 ms where 256 do, as they do under
// load; one that goes alone takes 4 ms (BenchmarkPostgresExchange in relay/registry, 2 cores
// that were busy with other work).
//
// # Locks
//
// Two levels of lock: a mailbox's shard, then a device's table; below them leaves. No
// two of one level are held at once, and each for a few memory operations only:
//
//	shard.mu       the shard's mailboxes and their targets, save what target says is the
//	               device's; its counters
//	deviceTable.mu the table's devices: which there are, and for each what it shows, what
//	               is desired, what is in flight, its sharedState (device.mu is the same lock)
//	leaves         openMu (of the list of streams), health.mu, orgStats.mu, windows.mu, refusals.mu,
//	               watches.mu, Stream.mu, and those of packages dispatch and fair
//
// Stream.submitting comes before them and is held for a batch, so that none of a
// closed stream's events is taken. Before it come pulse.mu, held to drop every stream
// once the process was stopped, and of package ingest agents.mu. appTable.mu is held alone.
//
// What has to happen outside of them (waking a pool or a stream's reader,
// settling a target in another shard, telling who traces) is gathered in actions and applied after.
//
// The package does not speak gRPC or HTTP, does not know tokens, and keeps
// nothing on disk but the counts of shared devices' mailboxes: what is not settled
// is the agent's to send again.
package relay
