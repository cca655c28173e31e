//go:build e2e

// Package chaos kills parts of a machine at random moments of deploys, again and
// again, and shows that whatever was acknowledged is there afterwards, served,
// and that nothing half-made stays.
//
// Settings come from the environment: ROUNDS (5), SEED (the clock), and
// CHAOS_TABLE, a file that gets a line with the figures of a run that passed.
package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/e2e/fixture"
)

// Deadlines. They bound what never comes, also on a host that does much else;
// how long it took is in the table.
const (
	recoveryLimit = 5 * time.Minute // from the kill until everything serves
	deployLimit   = 6 * time.Minute // for a deploy to end, well or not
	settleLimit   = 5 * time.Minute // for rollouts under way to end
	leftoverLimit = 3 * time.Minute // for what is not needed any more to go
)

// longRun is from how many rounds on the examples take part, whose base images
// take a minute to make.
const longRun = 20

// campaign is one run: a machine, apps on it, and what is known of them.
type campaign struct {
	*fixture.Machine
	t      *testing.T
	api    client.Client
	web    *http.Client // trusts the platform
	random *rand.Rand
	apps   []*app
	images map[string]string        // image by the text in it
	usual  map[string]time.Duration // how long a deploy takes that nobody disturbs, by kind
	number int                      // of the latest text or mood
	stray  strays
	tally  tally
}

func TestChaos(t *testing.T) {
	rounds, seed := setting(t, "ROUNDS", 5), setting(t, "SEED", int(time.Now().Unix()))
	t.Logf("%d rounds, SEED=%d", rounds, seed)
	c := &campaign{
		t: t, Machine: fixture.Boot(t), random: rand.New(rand.NewPCG(uint64(seed), 0)),
		images: map[string]string{}, usual: map[string]time.Duration{}, stray: strays{},
		tally: newTally(t.Context(), rounds, seed),
	}
	c.Eventually("the node is ready", 20*time.Second, c.NodeReady)
	c.connect()
	c.web = c.Browser()
	c.makeApps(rounds >= longRun)
	for n := 1; n <= rounds; n++ {
		c.round(n)
		if n%50 == 0 || n == rounds && rounds >= longRun {
			c.noStrays(fmt.Sprintf("after round %d", n))
		}
	}
	c.tally.print(t)
	if table := os.Getenv("CHAOS_TABLE"); table != "" && !t.Failed() {
		if err := c.tally.write(table); err != nil {
			t.Error(err)
		}
	}
	c.Emerald("down", "--wipe", "--yes")
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, standard int) int {
	raw := os.Getenv(name)
	if raw == "" {
		return standard
	}
	n, err := strconv.Atoi(raw)
	if err != nil {
		t.Fatalf("%s=%s is no number", name, raw)
	}
	return n
}

func (c *campaign) connect() {
	ctrl.SetLogger(logr.Discard())
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			c.t.Fatal(err)
		}
	}
	cfg, err := c.Kube()
	if err != nil {
		c.t.Fatal(err)
	}
	// A connection that a killed server leaves behind says nothing for a while.
	cfg.Timeout = 5 * time.Second
	if c.api, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		c.t.Fatal(err)
	}
}

// round disturbs one deploy and looks what is left of the platform.
func (c *campaign) round(n int) {
	t := c.t
	ch := c.choose()
	v := c.victim()
	delay := time.Duration(c.random.Float64() * float64(c.usual[ch.kind]))
	ch.begin()
	deploy := make(chan outcome, 1)
	go func() { deploy <- c.run(ch.args...) }()
	sleep(t.Context(), delay)

	killed := time.Now()
	back, err := v.kill(t.Context())
	if err != nil {
		t.Fatalf("round %d: kill %s: %v", n, v.name, err)
	}
	quiet := c.listen(killed)
	if v.helped {
		c.Emerald(append([]string{"up"}, c.UpFlags()...)...)
	}
	what := fmt.Sprintf("round %d: %s of %s, %s killed after %.2fs", n, ch.kind, ch.app.name, v.name, delay.Seconds())
	c.must(what+": recovery", recoveryLimit, func(ctx context.Context) error {
		if err := back(ctx); err != nil {
			return err
		}
		return c.serving(ctx)
	})
	recovered, silent := time.Since(killed), quiet()

	result := "not acknowledged"
	select {
	case o := <-deploy:
		if o.err == nil {
			result = "acknowledged"
			c.acknowledge(ch, o)
		} else {
			t.Logf("the deploy ended with %v:\n%s", o.err, o.tail())
		}
	case <-time.After(deployLimit):
		t.Fatalf("%s: the deploy has not ended after %s", what, deployLimit)
	}
	t.Logf("%s: %s, recovered after %.1fs, unanswered until %.1fs: %d requests (%v)",
		what, result, recovered.Seconds(), silent.ends.Seconds(), silent.failed, silent.last)
	c.tally.add(recovered, silent.ends)

	c.must(what+": rest", settleLimit, c.settled)
	c.compare(what)
	c.deployAgain(what)
	c.lookForStrays(what)
}

// deployAgain shows that the platform takes the next deploy at once.
func (c *campaign) deployAgain(what string) {
	ch := c.choose()
	ch.begin()
	o := c.run(ch.args...)
	if o.err != nil {
		c.t.Fatalf("%s: a deploy afterwards (%s of %s): %v\n%s", what, ch.kind, ch.app.name, o.err, o.tail())
	}
	c.usual[ch.kind] = o.took
	c.acknowledge(ch, o)
	c.must(what+": rest after the next deploy", settleLimit, c.settled)
	c.compare(what + ", and the next deploy")
}

// must ends the test with the last error when check has not succeeded in time.
func (c *campaign) must(what string, limit time.Duration, check func(context.Context) error) {
	c.t.Helper()
	c.Eventually(what, limit, check)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
