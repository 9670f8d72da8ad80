package registry

// ImportBatch is the number of registrations in a transaction of an import.
// Device tokens are random, so every row of a large table touches another page
// of the one by device, and fewer and larger transactions write far fewer pages.
// Other writers wait for some tenths of a second.
const ImportBatch = 30000

// importInBatches imports in transactions of up to size. write runs one: it
// makes a subscribeTx of registrations that are valid, calls decide with it, and
// writes what was decided.
func importInBatches(rs []Registration, size int, write func(qs []request, decide func(*subscribeTx)) error) (result ImportResult, err error) {
	for first := 0; ; first += size {
		part, err := importBatch(first, rs[first:min(len(rs), first+size)], write)
		if err != nil {
			return result, err
		}
		result.Created += part.Created
		result.Renewed += part.Renewed
		result.Rejections = append(result.Rejections, part.Rejections...)
		if first+size >= len(rs) {
			return result, nil
		}
	}
}

// importBatch imports, in one transaction, what begins at position first.
func importBatch(first int, rs []Registration, write func([]request, func(*subscribeTx)) error) (result ImportResult, err error) {
	errs := make([]error, len(rs))
	valid := make([]request, 0, len(rs))
	for i, r := range rs {
		if errs[i] = r.validate(); errs[i] == nil {
			valid = append(valid, r.request())
		}
	}
	err = write(valid, func(p *subscribeTx) {
		for i, r := range rs {
			if errs[i] == nil {
				errs[i] = result.count(p.declare(r.request()))
			}
		}
	})
	if err != nil {
		return ImportResult{}, err
	}
	for i, err := range errs {
		if err != nil {
			result.Rejections = append(result.Rejections, Rejection{Index: first + i, Err: err})
		}
	}
	return result, nil
}

func (r *ImportResult) count(d declared, err error) error {
	switch {
	case err != nil:
	case len(d.added) > 0:
		r.Created++
	default:
		r.Renewed++
	}
	return err
}
