// Package diagnosis says why the badge of a mailbox is what it is. What relays and
// the organization's agent know are facts (Facts); Diagnose turns them into a verdict,
// a code and a sentence, and Page sets both out for people. A running agent is asked
// on its socket (Ask, Handler).
//
// The verdict is the answer of the first of these questions that has one. Each is a
// function that lists what may be wrong, the nearest to the beginning first:
//
//	relayTrouble         could a relay be asked?
//	organizationTrouble  is the organization enabled?
//	subscriptionTrouble  is there a device, of an app that the relay has?
//	agentTrouble         is one agent active, or may one be?
//	deviceTrouble        of a mailbox that APNs refuses every device of: why?
//	absentAgent          may a newer count be told? Where the last one stands, it is a note
//	mailServerTrouble    does the mail server count what the relay has?
//	countTrouble         does the relay have a count that may leave?
//	deviceTrouble        does every device show it? Its app, its sum, its waits
//	silentTrouble        did every relay that is there answer?
//
// Else the badge is right (allRight). What the page has beside the verdict that people
// would hold against it is added as notes: of agents (absentAgent, tellerLeft,
// notCounted, notAsked), and of a right badge (appBeside, partBeside, removedBeside).
//
// A relay is judged by what it has: the agent by the one that told the count, the app by
// the relay that pushes for the device. How others fare is no verdict.
//
// It asks no relay, and prints nothing.
package diagnosis
