package configfile

// Nearest returns the known word that is at most two edits away from word, and fewer than
// it has bytes, the closest one; empty if there is none.
func Nearest(word string, known []string) string {
	best, distance := "", min(3, len(word))
	for _, k := range known {
		if n := edits(word, k, distance); n < distance {
			best, distance = k, n
		}
	}
	return best
}

// edits returns the Levenshtein distance of a and b, or limit if it is not
// below that.
func edits(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
