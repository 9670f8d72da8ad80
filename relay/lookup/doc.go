// Package lookup reads subscriptions when they are needed: State is what is known of
// one mailbox's, and Loader reads those of many together.
//
//	       BeginLoad                 EndLoad
//	Unknown --------> Loading ------------------> Known
//	   ^                |  ^                        |
//	   |     Invalidate |  | EndLoad: once more     |
//	   |                v  |                        |
//	   |              Changed                       |
//	   +------------------------- Invalidate -------+
//	                              (needed at once: Loading)
//
// While the registry fails, what has to be read waits. A batch that fails is asked for
// again in halves, down to single mailboxes, each of which goes to the end of its
// organization's: what the registry can't read of one mailbox holds no other up. Only
// when one mailbox after the other fails is there a pause.
//
// The package does not know what a mailbox or a subscription is.
package lookup
