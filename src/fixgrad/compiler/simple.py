"""Tilings that fit, without a search."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.kernels import END_WORDS, entry_words
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.tiling import LayerTiling, Rectangle, Split, Tiling, read_rectangle
from fixgrad.compiler.geometry import Span
from fixgrad.machine import Machine

def simple_tilings(found: Sequence[Stage], dense: Sequence[NDArray[np.bool_]], machine: Machine, trains: bool):
    return [_layer(stage, machine, trains) for stage in found]

def _split(machine, rows, cols):
    p = machine.pes_per_group
    if rows*cols < p: return Split(channels=p) if p>1 else Split()
    return {1:Split(),2:Split(rows=1,columns=2) if cols>1 else Split(rows=2),4:Split(2,2) if rows>1 and cols>1 else (Split(1,4) if rows==1 else Split(4,1))}[p]

def _pow2(x):
    return 1 << (x.bit_length()-1)

def _layer(stage, machine, trains):
    axes=(stage.rows, stage.columns)
    G=machine.groups
    def tile(rows, cols, pool, transposed):
        split=_split(machine, rows, cols)
        tr, tc = rows, cols
        while True:
            rect=Rectangle(Span(0,tr),Span(0,tc))
            px=max(r.pixels for r in split.rectangles(rect))
            # worst read area over all tiles
            area=0
            for a in range(0,rows,tr):
                for b in range(0,cols,tc):
                    for r in split.rectangles(Rectangle(Span(a,min(a+tr,rows)),Span(b,min(b+tc,cols)))):
                        area=max(area, read_rectangle(axes,r,transposed).pixels)
            if px<=machine.half_lane_words and area*2<=machine.input_words: break
            if tr>=tc and tr>pool[0]: tr=max(pool[0], (tr//2)//pool[0]*pool[0])
            elif tc>pool[1]: tc=max(pool[1], (tc//2)//pool[1]*pool[1])
            else: raise ValueError((stage.name,"does not fit"))
        return split,tr,tc,px,area
    wpk=entry_words(stage.taps,True)
    O,M=stage.matrix_shape
    q=machine.kernel_words//2-END_WORDS
    def chan(split,px,total,cap):
        Q=G*split.channels
        n=min(cap//px, q//wpk, -(-total//Q))
        return _pow2(max(n,1))
    s,tr,tc,px,area=tile(stage.rows.out_size, stage.columns.out_size, stage.pool, False)
    n=chan(s,px,O,machine.half_lane_words)
    ff=Tiling(s,tr,tc,n,max(1,machine.input_words//3//max(area,1)))
    ng=wg=None
    ws,wr,wc,wpx,warea=tile(stage.rows.out_size, stage.columns.out_size, (1,1), False)
    wn=min(chan(ws,wpx,O,machine.half_lane_words), _pow2(machine.half_gradient_words//stage.taps))
    r=min(n,wn)
    if stage.index and trains:
        if stage.source_pixels>1:
            s2,tr2,tc2,px2,area2=Split(channels=machine.pes_per_group) if machine.pes_per_group>1 else Split(),1,1,1,1
        else:
            s2,tr2,tc2,px2,area2=tile(stage.source.rows, stage.source.columns, (1,1), True)
        n2=chan(s2,px2,stage.source.channels,machine.half_lane_words)
        c2=max(1,machine.input_words//3//max(area2,1))
        r=min(r,_pow2(c2))
        # queue: a block row of n2 columns must fit
        while r*n2*wpk>q and r>1: r//=2
        ng=Tiling(s2,tr2,tc2,n2,c2)
    if trains: wg=Tiling(ws,wr,wc,wn,max(1,machine.input_words//3//max(warea,1)))
    return LayerTiling(r,ff,ng,wg)
