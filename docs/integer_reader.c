/* Reads a network that snnjax.integer.IntegerNetwork.save wrote, runs its test vector
   and prints, layer by layer, the number of spikes and of differences.

       cc -O2 -o integer_reader integer_reader.c && ./integer_reader network.npz

   The file is a zip without compression: .npy arrays in the order of the layers. Its
   rules are those of snnjax/integer/reference.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char name[200]; int shape[5], ndim; long size; int32_t *x; } Array;
static Array arrays[4096];
static int number;

static void read_file(const char *path) {
  FILE *f = fopen(path, "rb");
  unsigned char h[30];
  if (!f) { fprintf(stderr, "no file %s\n", path); exit(2); }
  while (fread(h, 1, 30, f) == 30 && !memcmp(h, "PK\3\4", 4) && number < 4096) {
    Array *a = &arrays[number++];
    uint32_t bytes, names = h[26] | h[27] << 8, extra = h[28] | h[29] << 8;
    memcpy(&bytes, h + 18, 4);
    char *data = malloc(bytes + 1);
    if (names >= sizeof a->name || fread(a->name, 1, names, f) != names) exit(2);
    a->name[names] = 0;
    fseek(f, extra, SEEK_CUR);
    if (fread(data, 1, bytes, f) != bytes) exit(2);
    data[bytes] = 0;
    char *point = strstr(data + 10, "'shape': (");
    if (!strstr(a->name, ".npy") || !point) { free(data); continue; }
    char *type = strstr(data + 10, "'descr': '") + 11; /* i4 of <i4 */
    int header = 10 + ((unsigned char)data[8] | (unsigned char)data[9] << 8);
    a->size = 1;
    for (point += 10; *point != ')'; point += strspn(point, ", "))
      a->size *= a->shape[a->ndim++] = (int)strtol(point, &point, 10);
    a->x = malloc(4 * (a->size + 1));
    for (long i = 0; i < a->size; i++) {
      char *p = data + header + i * (type[1] - '0');
      if (type[0] == 'f') a->x[i] = 0; /* layers of floats, which C does not run */
      else if (type[1] == '1') a->x[i] = type[0] == 'u' ? *(uint8_t *)p : *(int8_t *)p;
      else if (type[1] == '2') { int16_t v; memcpy(&v, p, 2); a->x[i] = v; }
      else memcpy(&a->x[i], p, 4);
    }
    free(data);
  }
}

static Array *find(const char *prefix, const char *field) { /* NULL if there is none */
  char name[600];
  snprintf(name, sizeof name, "%s%s.npy", prefix, field);
  for (int i = 0; i < number; i++) if (!strcmp(arrays[i].name, name)) return &arrays[i];
  return NULL;
}

static int64_t divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0)); }
static int64_t clip(int64_t v, int64_t a, int64_t b) { return v < a ? a : v > b ? b : v; }

enum { KIND, FIRST, SECOND, WH, WW, SH, SW, PH, PW, GROUPS, FIRES, SOFT, SITE, LOW, HIGH,
       HALF, TABLE, PER_POSITION, COLUMNS };
enum { LAYER, ADD, AND, IAND, MAX_POOL, SUM_POOL, FLATTEN };
typedef struct { int h, w, c; int32_t *x, *v; char name[200]; long fired, wrong; } Node;

static int64_t to_level(const int32_t *p, int64_t step, int64_t v) {
  if (p[HALF]) return clip(divide(v, step), p[LOW], p[HIGH]) * step + step / 2;
  int64_t code = divide(2 * v + step, 2 * step);
  if (code * 2 * step == 2 * v + step && code % 2) code--; /* a tie: the even code */
  return clip(code, p[LOW], p[HIGH]) * step;
}

int main(int argc, char **argv) {
  if (argc < 2) { fprintf(stderr, "usage: %s network.npz\n", argv[0]); return 2; }
  read_file(argv[1]);
  Array *program = find("program", ""), *in = find("example.input", "");
  if (!program || !in) { fprintf(stderr, "%s is no network\n", argv[1]); return 2; }
  const int32_t *net = program->x;
  int nodes = program->shape[0] - 1, T = net[0], still = net[2];
  const int *shape = in->shape + !still;
  int64_t limit = 1LL << (net[1] - 1), positions = 1, wrong = 0;
  Node *all = calloc(nodes + 1, sizeof(Node));
  all[0].h = shape[1], all[0].w = shape[2], all[0].c = shape[3];
  for (int i = 1, at = 0; i <= nodes; i++) { /* shapes, and the layers' names */
    const int32_t *p = net + COLUMNS * i;
    Node *n = &all[i], *s = &all[p[FIRST]];
    *n = *s;
    n->x = n->v = NULL;
    if (p[WH]) n->h = (s->h + 2 * p[PH] - p[WH]) / p[SH] + 1;
    if (p[WW]) n->w = (s->w + 2 * p[PW] - p[WW]) / p[SW] + 1;
    if (p[KIND] == FLATTEN) n->c *= s->h * s->w;
    if (p[KIND] == SUM_POOL && !p[WH]) positions = s->h * s->w;
    if (p[KIND] == FLATTEN || (p[KIND] == SUM_POOL && !p[WH])) n->h = n->w = 1;
    if (p[KIND] == LAYER) {
      while (!strstr(arrays[at].name, ".codes.npy")) at++;
      strcpy(n->name, arrays[at].name);
      *strstr(n->name, ".codes.npy") = 0;
      n->c = arrays[at].shape[arrays[at].ndim - 1], at++;
    }
    n->x = calloc((size_t)n->h * n->w * n->c, 4), n->v = calloc((size_t)n->h * n->w * n->c, 4);
  }
  for (int image = 0; image < shape[0]; image++) for (int t = 0; t < T; t++) {
    long size = (long)all[0].h * all[0].w * all[0].c;
    all[0].x = in->x + ((still ? 0 : (long)t * shape[0]) + image) * size;
    for (int i = 1; i <= nodes; i++) {
      const int32_t *p = net + COLUMNS * i;
      Node *n = &all[i], *a = &all[p[FIRST]], *b = &all[p[SECOND]];
      Array *codes = find(n->name, ".codes"), *table = find(n->name, ".table");
      Array *threshold = find(n->name, ".threshold"), *reset = find(n->name, ".reset");
      Array *leak = find(n->name, ".leak"), *step = find(n->name, ".step");
      Array *shift = find(n->name, ".shift"), *bias = find(n->name, ".bias");
      char name[300];
      snprintf(name, sizeof name, "example.spikes.%s", n->name);
      Array *expected = find(p[FIRES] ? name : "example.logits", "");
      int inputs = p[KIND] == LAYER ? a->c / p[GROUPS] : 1;
      int each = p[KIND] == LAYER ? n->c / p[GROUPS] : 1;
      if (p[KIND] == SUM_POOL && !p[WH]) memset(n->x, 0, 4L * n->c);
      for (int y = 0; y < n->h; y++) for (int x = 0; x < n->w; x++) for (int c = 0; c < n->c; c++) {
        long here = ((long)y * n->w + x) * n->c + c;
        int64_t sum = 0;
        if (p[KIND] == ADD) sum = a->x[here] + b->x[here];
        if (p[KIND] == AND) sum = a->x[here] * b->x[here];
        if (p[KIND] == IAND) sum = a->x[here] * (1 - b->x[here]);
        if (p[KIND] == FLATTEN) sum = a->x[here];
        int wh = p[KIND] == SUM_POOL && !p[WH] ? a->h : p[WH], ww = p[WW] ? p[WW] : a->w;
        for (int r = 0; r < wh; r++) for (int q = 0; q < ww; q++) {
          int yy = y * p[SH] + r - p[PH], xx = x * p[SW] + q - p[PW];
          if (yy < 0 || yy >= a->h || xx < 0 || xx >= a->w) continue;
          const int32_t *from = a->x + ((long)yy * a->w + xx) * a->c;
          if (p[KIND] == SUM_POOL) sum += from[c];
          if (p[KIND] == MAX_POOL && from[c] > sum) sum = from[c];
          for (int k = 0; p[KIND] == LAYER && k < inputs; k++) {
            int32_t w = codes->x[(((long)r * p[WW] + q) * inputs + k) * n->c + c];
            sum += (table ? table->x[w * n->c + c] : (int64_t)w) * from[c / each * inputs + k];
          }
        }
        if (p[KIND] == LAYER) {
          int s = shift->x[c];
          sum = s >= 0 ? sum * (1LL << s) : divide(sum + (1LL << (-s - 1)), 1LL << -s);
          sum += bias->x[c] * (p[PER_POSITION] ? positions : 1);
        }
        if (p[FIRES]) {
          int64_t rest = p[SOFT] ? 0 : reset->x[c], v = t ? n->v[here] : rest;
          int64_t h = v - divide((v - rest) * leak->x[c], 1 << 15) + sum;
          h = clip(h, -limit, limit - 1);
          if (p[SITE] == 2) h = to_level(p, step->x[c], h);
          sum = h >= threshold->x[c];
          v = sum ? (p[SOFT] ? h - reset->x[c] : reset->x[c]) : h;
          n->v[here] = (int32_t)(p[SITE] == 1 ? to_level(p, step->x[c], v) : v);
          n->fired += sum;
        }
        n->x[here] = (int32_t)sum;
        if (p[KIND] == LAYER && expected)
          n->wrong += expected->x[((long)t * shape[0] + image) * n->h * n->w * n->c + here] != sum;
      }
    }
  }
  for (int i = 1; i <= nodes; i++) if (net[COLUMNS * i] == LAYER) {
    printf("%s %ld spikes, %ld differ\n", all[i].name, all[i].fired, all[i].wrong);
    wrong += all[i].wrong;
  }
  return wrong > 0;
}
