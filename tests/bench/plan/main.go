// Command plan measures the planner's packing of intervals: instances from files (id,lower,upper,size with half-open
// lifetimes, the capacity in the name) and generated ones of the same character, whose optimum is known by construction.
//
//	go run ./tests/bench/plan [-seconds 10] [-nodes N] [-generated N] [FILE ...]
//
// Times are seconds of one core (user time of this process, so that other work on the machine does not count).
package main

import (
	"encoding/csv"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/libadcg/libadcg/piecewise"
)

// instance is a set of intervals to be packed.
type instance struct {
	name     string
	items    []piecewise.Interval
	capacity int64 // 0: none is given
}

var capacityInName = regexp.MustCompile(`\.(\d+)\.csv$`)

func load(path string) (instance, error) {
	file, err := os.Open(path)
	if err != nil {
		return instance{}, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return instance{}, err
	}
	out := instance{name: filepath.Base(path)}
	if m := capacityInName.FindStringSubmatch(out.name); m != nil {
		out.capacity, _ = strconv.ParseInt(m[1], 10, 64)
	}
	column := map[string]int{}
	for line, row := range rows {
		if line == 0 {
			for i, name := range row {
				column[name] = i
			}
			for _, name := range []string{"lower", "upper", "size"} {
				if _, ok := column[name]; !ok {
					return out, fmt.Errorf("%s: no column `%s`", path, name)
				}
			}
			continue
		}
		var numbers [3]int64
		for i, name := range []string{"lower", "upper", "size"} {
			if numbers[i], err = strconv.ParseInt(row[column[name]], 10, 64); err != nil {
				return out, fmt.Errorf("%s: line %d: %w", path, line+1, err)
			}
		}
		if numbers[0] < 0 || numbers[1] <= numbers[0] || numbers[2] < 1 {
			return out, fmt.Errorf("%s: line %d: lower %d, upper %d, size %d: must be 0 <= lower < upper, size > 0", path, line+1, numbers[0], numbers[1], numbers[2])
		}
		out.items = append(out.items, piecewise.Interval{First: int(numbers[0]), Last: int(numbers[1] - 1), Size: numbers[2]})
	}
	return out, nil
}

// user is this process's time on a core, in seconds.
func user() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// result of one instance; times are NaN if it was not reached.
type result struct {
	placed             piecewise.Placement
	first, near, bound float64 // seconds to the first placement, to 1.05 times the bound, to the bound
	best, all          float64 // to the last improvement, and to the end
	afterSecond        float64 // height over bound after one second
}

func measure(in instance, effort piecewise.Effort) result {
	nan := math.NaN()
	r := result{first: nan, near: nan, bound: nan, best: nan, afterSecond: nan}
	start := user()
	effort.Better = func(p *piecewise.Placement) {
		at := user() - start
		set := func(to *float64, reached bool) {
			if math.IsNaN(*to) && reached {
				*to = at
			}
		}
		set(&r.first, true)
		set(&r.near, float64(p.Height) <= 1.05*float64(p.Bound))
		set(&r.bound, p.Height == p.Bound)
		r.best = at
		if at <= 1 || math.IsNaN(r.afterSecond) {
			r.afterSecond = float64(p.Height) / float64(p.Bound)
		}
	}
	r.placed = piecewise.Pack(in.items, effort)
	r.all = user() - start
	return r
}

func run() error {
	seconds := flag.Float64("seconds", 10, "of search for each instance")
	nodes := flag.Int64("nodes", math.MaxInt64, "of search trees for each instance")
	generated := flag.Int("generated", 0, "how many instances to generate")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	var instances []instance
	for _, path := range flag.Args() {
		in, err := load(path)
		if err != nil {
			return err
		}
		instances = append(instances, in)
	}
	instances = append(instances, generate(*generated)...)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "instance\tintervals\theight\tbound\tcapacity\theight/bound\tafter 1 s\tfirst\tto 1.05x\tto bound\tlast better\tend\t")
	for _, in := range instances {
		r := measure(in, piecewise.Effort{Nodes: *nodes, Time: time.Duration(*seconds * float64(time.Second))})
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%.4f\t%.4f\t%s\t%s\t%s\t%s\t%s\t\n", in.name, len(in.items), r.placed.Height, r.placed.Bound, in.capacity,
			float64(r.placed.Height)/float64(r.placed.Bound), r.afterSecond, short(r.first), short(r.near), short(r.bound), short(r.best), short(r.all))
		table.Flush()
	}
	return nil
}

func short(seconds float64) string {
	if math.IsNaN(seconds) {
		return "-"
	}
	return fmt.Sprintf("%.3f", seconds)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plan:", err)
		os.Exit(1)
	}
}
