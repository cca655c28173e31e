//go:build e2e

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/e2e/fixture"
)

// app is a deployed app and what it may be: of a deploy that was acknowledged
// there is one possibility, of one that was not there are two.
type app struct {
	name, url string
	dir       string // of its source; "" when it is deployed from images
	file      string // in dir, which has the text in place of line
	line      string
	source    []byte // of file, as it was
	written   string // text that is in the folder

	text, mood map[string]bool
	copies     map[int32]bool
}

// change is a deploy: what it sets, or leaves alone where it is zero.
type change struct {
	kind       string
	app        *app
	args       []string
	text, mood string
	copies     int32
}

// begin allows for the deploy to take effect.
func (ch *change) begin() {
	if ch.text != "" {
		ch.app.text[ch.text] = true
	}
	if ch.mood != "" {
		ch.app.mood[ch.mood] = true
	}
	if ch.copies != 0 {
		ch.app.copies[ch.copies] = true
	}
}

// acknowledge allows for nothing but the deploy.
func (c *campaign) acknowledge(ch *change, o outcome) {
	c.tally.acknowledged++
	a := ch.app
	if ch.text != "" {
		a.text = map[string]bool{ch.text: true}
	}
	if ch.mood != "" {
		a.mood = map[string]bool{ch.mood: true}
	}
	if ch.copies != 0 {
		a.copies = map[int32]bool{ch.copies: true}
	}
	var answer struct{ URL, Image string }
	if json.Unmarshal([]byte(o.out), &answer) == nil {
		a.url = answer.URL
		if ch.text != "" && a.dir != "" && a.name == "page" {
			c.images[ch.text] = answer.Image
		}
	}
}

// makeApps deploys every app once, undisturbed.
func (c *campaign) makeApps(examples bool) {
	dir := c.t.TempDir()
	add := func(name, folder, file, line string) *app {
		a := &app{name: name, file: file, line: line, text: map[string]bool{}, mood: map[string]bool{"": true}, copies: map[int32]bool{1: true}}
		if folder != "" {
			a.dir = filepath.Join(dir, name)
			if err := os.CopyFS(a.dir, os.DirFS(folder)); err != nil {
				c.t.Fatal(err)
			}
			var err error
			if a.source, err = os.ReadFile(filepath.Join(a.dir, file)); err != nil {
				c.t.Fatal(err)
			}
		}
		c.apps = append(c.apps, a)
		return a
	}
	c.first(c.newSource(add("page", c.buildPage(dir), "text", "edition")))
	c.first(c.newImage(add("copy", "", "", "")))
	if examples {
		c.first(c.newSource(add("static", "../../examples/static", "index.html", "<h1>Batteries included</h1>")))
		c.first(c.newSource(add("go", "../../examples/go", "main.go", "Hello from Go")))
	}
	// Once more, now that there are base images and caches.
	for _, a := range c.apps {
		if a.dir != "" {
			c.first(c.newSource(a))
		}
	}
	c.first(c.newMood(c.apps[0]))
	c.first(c.newCopies(c.apps[1]))
	c.must("every app serves", settleLimit, c.settled)
	c.compare("at first")
}

// buildPage compiles the app that answers with its text and mood.
func (c *campaign) buildPage(dir string) string {
	folder := filepath.Join(dir, "page-folder")
	if err := os.CopyFS(folder, os.DirFS("testdata/page")); err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(c.t.Context(), "go", "build", "-o", filepath.Join(folder, "page"), "./testdata/page")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("build the page: %v\n%s", err, out)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(folder, "text"), []byte("edition"), 0o644), os.Remove(filepath.Join(folder, "main.go"))); err != nil {
		c.t.Fatal(err)
	}
	return folder
}

// first deploys undisturbed.
func (c *campaign) first(ch *change) {
	ch.begin()
	o := c.run(ch.args...)
	if o.err != nil {
		c.t.Fatalf("%s of %s: %v\n%s", ch.kind, ch.app.name, o.err, o.tail())
	}
	c.usual[ch.kind] = o.took
	delete(ch.app.text, "")
	c.acknowledge(ch, o)
}

// choose makes the next deploy.
func (c *campaign) choose() *change {
	options := []func() *change{
		func() *change { return c.newSource(c.apps[0]) },
		func() *change { return c.newMood(c.apps[0]) },
		func() *change { return c.newCopies(c.apps[0]) },
		func() *change { return c.newImage(c.apps[1]) },
		func() *change { return c.newCopies(c.apps[1]) },
	}
	for _, a := range c.apps[2:] {
		options = append(options, func() *change { return c.newSource(a) })
	}
	return options[c.random.IntN(len(options))]()
}

// newSource changes one line of an app's source.
func (c *campaign) newSource(a *app) *change {
	c.number++
	a.written = fmt.Sprintf("edition-%d", c.number)
	text := strings.ReplaceAll(a.line, "Batteries included", a.written)
	text = strings.ReplaceAll(text, "Hello from Go", a.written)
	if a.line == "edition" {
		text = a.written
	}
	if err := os.WriteFile(filepath.Join(a.dir, a.file), bytes.ReplaceAll(a.source, []byte(a.line), []byte(text)), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return &change{kind: "source of " + a.name, app: a, text: a.written, args: []string{"deploy", a.dir, "--name", a.name, "-o", "json"}}
}

// newImage deploys an image that is in the registry.
func (c *campaign) newImage(a *app) *change {
	texts := slices.Sorted(maps.Keys(c.images))
	text := texts[c.random.IntN(len(texts))]
	return &change{kind: "image", app: a, text: text, args: []string{"deploy", c.images[text], "--name", a.name, "-o", "json"}}
}

// newMood changes a variable, and whatever is in the folder by now.
func (c *campaign) newMood(a *app) *change {
	c.number++
	mood := fmt.Sprintf("mood-%d", c.number)
	return &change{
		kind: "variable", app: a, text: a.written, mood: mood,
		args: []string{"deploy", a.dir, "--name", a.name, "--env", "MOOD=" + mood, "-o", "json"},
	}
}

// newCopies changes how many copies run, to another number than there may be.
func (c *campaign) newCopies(a *app) *change {
	n := int32(1 + c.random.IntN(3))
	for len(a.copies) == 1 && a.copies[n] {
		n = n%3 + 1
	}
	return &change{kind: "scale", app: a, copies: n, args: []string{"app", "scale", a.name, fmt.Sprint(n)}}
}

// outcome is how a command ended.
type outcome struct {
	out, errOut string
	err         error
	took        time.Duration
}

// tail is the end of what the command said.
func (o outcome) tail() string {
	lines := strings.Split(strings.TrimSpace(o.errOut), "\n")
	return strings.Join(lines[max(0, len(lines)-6):], "\n")
}

// run types a command on the machine.
func (c *campaign) run(args ...string) outcome {
	cmd := c.Command(c.t.Context(), fixture.Binary(c.t), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	began := time.Now()
	err := c.Run(cmd)
	return outcome{out: out.String(), errOut: errOut.String(), err: err, took: time.Since(began)}
}

var (
	textPattern = regexp.MustCompile(`edition-\d+`)
	moodPattern = regexp.MustCompile(`mood-\d+`)
)

// ask reads what an app answers on its URL, over a connection of its own.
func (c *campaign) ask(ctx context.Context, a *app) (text, mood string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/", nil)
	if err != nil {
		return "", "", err
	}
	req.Close = true
	resp, err := c.web.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", "", fmt.Errorf("GET %s: %w", a.url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("GET %s: %s: %s", a.url, resp.Status, body)
	}
	return textPattern.FindString(string(body)), moodPattern.FindString(string(body)), nil
}

// appSettled returns nil once an app's last change is wholly rolled out.
func (c *campaign) appSettled(ctx context.Context, a *app) error {
	key := client.ObjectKey{Namespace: "default", Name: a.name}
	var now v1alpha1.App
	if err := c.api.Get(ctx, key, &now); err != nil {
		return err
	}
	if cond := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionReady); now.Status.ObservedGeneration != now.Generation ||
		cond == nil || cond.Status != "True" || cond.Reason != v1alpha1.ReasonReady {
		return fmt.Errorf("app %s is not ready: %+v", a.name, cond)
	}
	var d appsv1.Deployment
	if err := c.api.Get(ctx, key, &d); err != nil {
		return err
	}
	return deploymentSettled(&d)
}

// compare demands that every app is what was acknowledged, where nothing is
// under way, and takes what it finds as the truth from now on.
func (c *campaign) compare(what string) {
	c.t.Helper()
	for _, a := range c.apps {
		var found state
		ctx, cancel := context.WithTimeout(c.t.Context(), learnLimit)
		err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			now, err := c.look(ctx, a)
			if err == nil {
				found = now
			}
			return err == nil && a.allows(now), nil
		})
		cancel()
		if err != nil {
			c.tally.lost++
			c.t.Errorf("%s: app %s is %+v; acknowledged: %v, %v, %v", what, a.name, found, a.text, a.mood, a.copies)
		}
		a.text, a.mood, a.copies = map[string]bool{found.text: true}, map[string]bool{found.mood: true}, map[int32]bool{found.copies: true}
	}
}

// learnLimit is how long the gateway may take to hear of new copies.
const learnLimit = 5 * time.Second

// state is what an app is found to be.
type state struct {
	text, mood string
	copies     int32
}

func (a *app) allows(s state) bool { return a.text[s.text] && a.mood[s.mood] && a.copies[s.copies] }

// look asks an app and the cluster.
func (c *campaign) look(ctx context.Context, a *app) (state, error) {
	text, mood, err := c.ask(ctx, a)
	if err != nil {
		return state{}, err
	}
	var d appsv1.Deployment
	if err := c.api.Get(ctx, client.ObjectKey{Namespace: "default", Name: a.name}, &d); err != nil {
		return state{}, err
	}
	return state{text, mood, *d.Spec.Replicas}, nil
}
