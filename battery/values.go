package battery

import "maps"

func ptr[T any](v T) *T { return &v }

// setDefault sets *field to value when it is nil.
func setDefault[T any](field **T, value *T) {
	if *field == nil {
		*field = value
	}
}

// merge returns a new map with the entries of both; those of over win.
func merge(base, over map[string]string) map[string]string {
	out := make(map[string]string, len(base)+len(over))
	maps.Copy(out, base)
	maps.Copy(out, over)
	return out
}
