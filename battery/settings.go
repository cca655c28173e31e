package battery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"
)

// DecodeConfig returns a value of the type of b.Config: the defaults with the
// user's settings, a JSON object, laid over them. Objects are merged key by
// key, arrays and scalars replace, null keeps the default. Empty settings give
// the defaults. Neither b nor what it points to is changed or shared.
//
// It is strict: a field the battery does not have, a field given twice, another
// spelling of its case, or a value of the wrong type is an error that names the
// field and, for an unknown one, the fields there are. All unknown fields are
// reported at once.
func DecodeConfig(b *Battery, settings []byte) (any, error) {
	settings = bytes.TrimSpace(settings)
	if bytes.Equal(settings, []byte("null")) {
		settings = nil
	}
	if b.Config == nil {
		if len(settings) == 0 || bytes.Equal(settings, []byte("{}")) {
			return nil, nil
		}
		return nil, fmt.Errorf("settings of battery %q: it has none: remove them", b.Name)
	}
	t := reflect.TypeOf(b.Config)
	defaults, err := json.Marshal(b.Config)
	if err != nil {
		return nil, fmt.Errorf("encode the defaults of battery %q: %w", b.Name, err)
	}
	merged := defaults
	if len(settings) > 0 {
		// The user's text is checked alone first: merging would hide fields
		// given twice, and its errors must speak of what the user wrote.
		if err := decodeStrict(settings, reflect.New(t)); err != nil {
			return nil, fmt.Errorf("settings of battery %q: %w", b.Name, err)
		}
		if merged, err = overlay(defaults, settings); err != nil {
			return nil, fmt.Errorf("settings of battery %q: %w", b.Name, err)
		}
	}
	out := reflect.New(t)
	if err := decodeStrict(merged, out); err != nil {
		return nil, fmt.Errorf("settings of battery %q: %w", b.Name, err)
	}
	return out.Elem().Interface(), nil
}

// DecodeStrict decodes the JSON object raw into what into points to, a struct, as
// strictly as DecodeConfig does and with the same errors.
func DecodeStrict(raw []byte, into any) error { return decodeStrict(raw, reflect.ValueOf(into)) }

// decodeStrict decodes raw into the value that into points to.
func decodeStrict(raw []byte, into reflect.Value) error {
	strict, err := kjson.UnmarshalStrict(raw, into.Interface())
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		field := wrong.Field
		if field == "" {
			return fmt.Errorf("is a JSON %s where an object is needed", wrong.Value)
		}
		return fmt.Errorf("field %q is a JSON %s where %s is needed", field, wrong.Value, wordFor(wrong.Type))
	case err != nil:
		return fmt.Errorf("read as JSON: %w", err)
	}
	var errs []error
	for _, e := range strict {
		var fe kjson.FieldError
		if !errors.As(e, &fe) || !strings.HasPrefix(e.Error(), "unknown") {
			errs = append(errs, e)
			continue
		}
		known := fieldsAt(into.Type().Elem(), fe.FieldPath())
		errs = append(errs, fmt.Errorf("unknown field %q: there are %s", fe.FieldPath(), strings.Join(known, ", ")))
	}
	return errors.Join(errs...)
}

// wordFor names a Go type in the words of someone who writes YAML.
func wordFor(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	}
	return t.String()
}

// ConfigFields returns the names of the fields that the user may set for the
// battery, sorted, as they are written in JSON; those of nested objects are not
// listed. It is empty when the battery has no Config.
func ConfigFields(b *Battery) []string {
	if b.Config == nil {
		return nil
	}
	return fieldsAt(reflect.TypeOf(b.Config), "")
}

// fieldsAt returns the JSON names beside the field that path leads to from t,
// for example "tls.ports[2].nmae".
func fieldsAt(t reflect.Type, path string) []string {
	steps := strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		name, _, _ := strings.Cut(step, "[")
		t = fieldType(t, name)
		for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			t = t.Elem()
		}
		if t == nil {
			return nil
		}
	}
	names := fieldNames(t)
	slices.Sort(names)
	return names
}

// fieldType returns the type of the member that JSON calls name, or nil.
func fieldType(t reflect.Type, name string) reflect.Type {
	if t.Kind() == reflect.Map {
		return t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for f := range visibleFields(t) {
		if jsonName(f) == name {
			return f.Type
		}
	}
	return nil
}

func fieldNames(t reflect.Type) []string {
	var names []string
	if t.Kind() == reflect.Struct {
		for f := range visibleFields(t) {
			names = append(names, jsonName(f))
		}
	}
	return names
}

// visibleFields yields the fields of a struct that JSON sees, those of embedded
// structs included.
func visibleFields(t reflect.Type) iter.Seq[reflect.StructField] {
	return func(yield func(reflect.StructField) bool) {
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			inlined := f.Anonymous && name == ""
			if !f.IsExported() || inlined || f.Tag.Get("json") == "-" {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" {
		return f.Name
	}
	return name
}

// overlay lays the JSON object over upon base: a merge patch (RFC 7386), except
// that null leaves the base as it is.
func overlay(base, over []byte) ([]byte, error) {
	b, err := parse(base)
	if err != nil {
		return nil, err
	}
	o, err := parse(over)
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(mergeValues(b, o))
	if err != nil {
		return nil, fmt.Errorf("merge with the defaults: %w", err)
	}
	return out, nil
}

// parse keeps numbers as they are written, so that none loses digits.
func parse(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("read as JSON: %w", err)
	}
	return v, nil
}

func mergeValues(base, over any) any {
	if over == nil {
		return base
	}
	b, ok := base.(map[string]any)
	o, ok2 := over.(map[string]any)
	if !ok || !ok2 {
		return over
	}
	for k, v := range o {
		b[k] = mergeValues(b[k], v)
	}
	return b
}
