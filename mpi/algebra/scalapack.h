/* Declarations of the BLACS and PBLAS routines of ScaLAPACK that mpi/ calls. The library ships no
 * headers.
 *
 * Names that end in `_` follow the Fortran convention: everything by reference, indices from 1, a
 * descriptor of 9 integers per matrix; no lengths of character arguments, since the PBLAS is C.
 */
#ifndef SNRQ_SCALAPACK_H
#define SNRQ_SCALAPACK_H

#include <mpi.h>

/* BLACS: process grids. A handle that is not needed any more is given back, never Cblacs_exit(),
 * which would finalize MPI. */
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridinit(int *context, const char *order, int rows, int columns);
void Cblacs_gridinfo(int context, int *rows, int *columns, int *row, int *column);
void Cblacs_gridexit(int context);

/* C <- alpha op(A) op(B) + beta C. */
void pdgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
             const double *alpha, const double *a, const int *ia, const int *ja, const int *desca,
             const double *b, const int *ib, const int *jb, const int *descb, const double *beta,
             double *c, const int *ic, const int *jc, const int *descc);

#endif
