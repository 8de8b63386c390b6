/* The paper's network trained digit by digit in plain loops, one core: what `python -m benchmarks on-line` compares with.
   Arrays are row by row; p and s hold parameters and step sizes of C1 S2 C3 S4 C5 F6, weights before biases. */
#include <math.h>
#include <string.h>

static float squash(float a) { return 1.7159f * tanhf(a * (2.0f / 3)); }
static float slope(float y) { return 2.0f / 3 * (1.7159f - y * y / 1.7159f); }

static void subsample(int maps, int side, const float *x, const float *w, const float *b, float *u, float *y) {
  for (int m = 0; m < maps; m++)
    for (int r = 0; r < side; r++)
      for (int c = 0; c < side; c++) {
        const float *at = x + (m * 2 * side + 2 * r) * 2 * side + 2 * c;
        int i = (m * side + r) * side + c;
        u[i] = at[0] + at[1] + at[2 * side] + at[2 * side + 1];
        y[i] = squash(w[m] * u[i] + b[m]);
      }
}

/* From the gradient at y, that at the squashed inputs; the parameters take their step. */
static void subsample_back(int maps, int side, const float *x, float *w, float *b, const float *sw, const float *sb,
                           const float *u, const float *y, const float *gy, float *dx) {
  for (int m = 0; m < maps; m++) {
    float gw = 0, gb = 0;
    for (int r = 0; r < side; r++)
      for (int c = 0; c < side; c++) {
        int i = (m * side + r) * side + c, at = (m * 2 * side + 2 * r) * 2 * side + 2 * c;
        float d = gy[i] * slope(y[i]);
        gw += d * u[i];
        gb += d;
        for (int k = 0; k < 4; k++) {
          int place = at + k / 2 * 2 * side + k % 2;
          dx[place] = d * w[m] * slope(x[place]);
        }
      }
    w[m] -= sw[m] * gw;
    b[m] -= sb[m] * gb;
  }
}

static void full(int units, int inputs, const float *x, const float *w, const float *b, float *y) {
  for (int j = 0; j < units; j++) {
    float a = b[j];
    for (int i = 0; i < inputs; i++) a += w[j * inputs + i] * x[i];
    y[j] = squash(a);
  }
}

static void full_back(int units, int inputs, const float *x, float *w, float *b, const float *sw, const float *sb,
                      const float *y, const float *gy, float *gx) {
  memset(gx, 0, inputs * sizeof *gx);
  for (int j = 0; j < units; j++) {
    float d = gy[j] * slope(y[j]);
    for (int i = 0; i < inputs; i++) {
      gx[i] += d * w[j * inputs + i];
      w[j * inputs + i] -= sw[j * inputs + i] * d * x[i];
    }
    b[j] -= sb[j] * d;
  }
}

/* Equation 8 with penalties of half the squared distance. pairs: C3's connections, output map and input map. */
void updates(int n, const float *digits, const int *labels, const int *pairs, const float *codes, float **p, float **s,
             float *distances) {
  static float y1[6 * 784], u2[6 * 196], y2[6 * 196], y3[1600], u4[400], y4[400], y5[120], y6[84];
  static float d1[6 * 784], g2[6 * 196], d3[1600], g4[400], g5[120], g6[84];
  for (int t = 0; t < n; t++) {
    const float *x = digits + 1024 * t;
    for (int m = 0; m < 6; m++)
      for (int r = 0; r < 28; r++) {
        float *row = y1 + (m * 28 + r) * 28;
        for (int c = 0; c < 28; c++) row[c] = p[1][m];
        for (int k = 0; k < 25; k++)
          for (int c = 0; c < 28; c++) row[c] += p[0][m * 25 + k] * x[(r + k / 5) * 32 + c + k % 5];
        for (int c = 0; c < 28; c++) row[c] = squash(row[c]);
      }
    subsample(6, 14, y1, p[2], p[3], u2, y2);
    for (int i = 0; i < 1600; i++) y3[i] = p[5][i / 100];
    for (int e = 0; e < 60; e++)
      for (int r = 0; r < 10; r++)
        for (int k = 0; k < 25; k++)
          for (int c = 0; c < 10; c++)
            y3[(pairs[2 * e] * 10 + r) * 10 + c] +=
                p[4][e * 25 + k] * y2[(pairs[2 * e + 1] * 14 + r + k / 5) * 14 + c + k % 5];
    for (int i = 0; i < 1600; i++) y3[i] = squash(y3[i]);
    subsample(16, 5, y3, p[6], p[7], u4, y4);
    full(120, 400, y4, p[8], p[9], y5);
    full(84, 120, y5, p[10], p[11], y6);
    for (int i = 0; i < 10; i++) {
      float sum = 0;
      for (int j = 0; j < 84; j++) sum += (y6[j] - codes[i * 84 + j]) * (y6[j] - codes[i * 84 + j]);
      distances[10 * t + i] = sum;
    }

    for (int j = 0; j < 84; j++) g6[j] = y6[j] - codes[labels[t] * 84 + j];
    full_back(84, 120, y5, p[10], p[11], s[10], s[11], y6, g6, g5);
    full_back(120, 400, y4, p[8], p[9], s[8], s[9], y5, g5, g4);
    subsample_back(16, 5, y3, p[6], p[7], s[6], s[7], u4, y4, g4, d3);
    memset(g2, 0, sizeof g2);
    for (int e = 0; e < 60; e++) {
      const float *d = d3 + pairs[2 * e] * 100;
      for (int k = 0; k < 25; k++) {
        float sum = 0, w = p[4][e * 25 + k];
        for (int r = 0; r < 10; r++)
          for (int c = 0; c < 10; c++) {
            int at = (pairs[2 * e + 1] * 14 + r + k / 5) * 14 + c + k % 5;
            sum += d[r * 10 + c] * y2[at];
            g2[at] += d[r * 10 + c] * w;
          }
        p[4][e * 25 + k] -= s[4][e * 25 + k] * sum;
      }
    }
    for (int m = 0; m < 16; m++) {
      float sum = 0;
      for (int i = 0; i < 100; i++) sum += d3[m * 100 + i];
      p[5][m] -= s[5][m] * sum;
    }
    subsample_back(6, 14, y1, p[2], p[3], s[2], s[3], u2, y2, g2, d1);
    for (int m = 0; m < 6; m++) {
      float bias = 0;
      for (int i = 0; i < 784; i++) bias += d1[m * 784 + i];
      p[1][m] -= s[1][m] * bias;
      for (int k = 0; k < 25; k++) {
        float sum = 0;
        for (int r = 0; r < 28; r++)
          for (int c = 0; c < 28; c++) sum += d1[(m * 28 + r) * 28 + c] * x[(r + k / 5) * 32 + c + k % 5];
        p[0][m * 25 + k] -= s[0][m * 25 + k] * sum;
      }
    }
  }
}
