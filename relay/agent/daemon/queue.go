package daemon

// queue is a first-in first-out of mailboxes. One that has left for another
// state is skipped when its turn comes.
type queue struct {
	boxes []*mailbox
	head  int
}

func (q *queue) push(box *mailbox) { q.boxes = append(q.boxes, box) }

// peek returns the first that still waits here.
func (q *queue) peek(here state) *mailbox {
	for q.head < len(q.boxes) {
		if box := q.boxes[q.head]; box.state == here {
			return box
		}
		q.drop()
	}
	return nil
}

func (q *queue) pop(here state) *mailbox {
	box := q.peek(here)
	if box != nil {
		q.drop()
	}
	return box
}

// drop takes the first out, and keeps the queue no longer than twice what it
// holds.
func (q *queue) drop() {
	q.boxes[q.head] = nil
	q.head++
	if q.head*2 < len(q.boxes) {
		return
	}
	n := copy(q.boxes, q.boxes[q.head:])
	clear(q.boxes[n:])
	q.boxes, q.head = q.boxes[:n], 0
}

// idle is a heap: the one that is due first comes first.
type idle []*mailbox

func (r idle) Len() int           { return len(r) }
func (r idle) Less(i, j int) bool { return r[i].due.Before(r[j].due) }
func (r idle) Swap(i, j int)      { r[i], r[j] = r[j], r[i]; r[i].index, r[j].index = i, j }

// Push implements heap.Interface.
func (r *idle) Push(x any) {
	box := x.(*mailbox)
	box.index = len(*r)
	*r = append(*r, box)
}

// Pop implements heap.Interface.
func (r *idle) Pop() any {
	last := len(*r) - 1
	box := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return box
}
