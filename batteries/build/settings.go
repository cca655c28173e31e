package build

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// settings are a Config that was found sound.
type settings struct {
	cacheSize, keepFree int64
	parallel            int
	baseAge             time.Duration
	memory, cpu         *resource.Quantity
}

// read checks a Config and returns every defect at once.
func (c Config) read() (settings, error) {
	var errs []error
	quantity := func(field, value string) resource.Quantity {
		q, err := resource.ParseQuantity(value)
		if err != nil || q.Sign() < 0 {
			errs = append(errs, fmt.Errorf("%s: %q is no amount such as 30Gi", field, value))
		}
		return q
	}
	bound := func(field, value string) *resource.Quantity {
		if value == "" {
			return nil
		}
		q := quantity(field, value)
		return &q
	}
	between := func(field string, value, low, high int32) {
		if value < low || value > high {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", field, value, low, high))
		}
	}
	size, free := quantity("cacheSize", c.CacheSize), quantity("keepFree", c.KeepFree)
	s := settings{
		cacheSize: size.Value(), keepFree: free.Value(),
		parallel: int(c.Parallel), baseAge: time.Duration(c.BaseDays) * 24 * time.Hour,
		memory: bound("memory", c.Memory), cpu: bound("cpu", c.CPU),
	}
	between("parallel", c.Parallel, 1, 256)
	between("baseDays", c.BaseDays, 1, 365)
	if len(errs) > 0 {
		return settings{}, fmt.Errorf("settings of battery \"build\": %w", errors.Join(errs...))
	}
	return s, nil
}
